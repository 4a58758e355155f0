"""`quip examples`: test sentences beside what the teacher and every trained student made of them.

The order of the sentences is that of the sha256 of their ids, as in the report: nobody can choose
which are shown. README.md keeps the same texts between two marks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill

from quip.core.jsonl import read_rows
from quip.core.records import Reference, Response
from quip.reporting.marked_block import add_marks
from quip.reporting.tables import sample_inputs
from quip.runtime.errors import DataError
from quip.stages.roles import KNOWN_ARMS

REFERENCES = Path("data/imitation/references.jsonl")
RESPONSES = Path("data/responses")
BLOCK = "examples"
WIDTH = 100

Example = dict[str, str]
"""Who wrote it -> the text: `literal`, `teacher`, then the arms, `sft` first."""


def read(count: int, references: Path = REFERENCES, responses: Path = RESPONSES) -> list[Example]:
    """The first `count` test sentences by the digest of their id.

    Raises DataError where no student has answered yet or a file cannot be read.
    """
    arms = [arm for arm in KNOWN_ARMS if (responses / f"{arm}.jsonl").is_file()]
    if not arms:
        raise DataError(f"{responses}: no answers yet. Run `make run` or `dvc repro`.")
    answers = {arm: read_rows(responses / f"{arm}.jsonl", Response) for arm in arms}
    return examples(sample_inputs(read_rows(references, Reference), "test", count), answers)


def examples(
    references: Sequence[Reference], answers: Mapping[str, Sequence[Response]]
) -> list[Example]:
    """The teacher's first text of every reference beside the answer of every arm that has one."""
    texts = {arm: {row.input: row.text for row in rows} for arm, rows in answers.items()}
    return [
        {"literal": row.literal, "teacher": row.paraphrases[0]}
        | {arm: found[row.input] for arm, found in texts.items() if row.input in found}
        for row in references
    ]


def text(found: Sequence[Example]) -> str:
    """One paragraph an example, one text a line, an empty line between two examples."""
    return "\n\n".join("\n".join(lines(example)) for example in found)


def lines(example: Example) -> Iterator[str]:
    indent = max(map(len, example)) + 2
    for who, said in example.items():
        one_line = " ".join(said.split())
        yield fill(who.ljust(indent) + one_line, WIDTH, subsequent_indent=" " * indent)


def markdown(found: Sequence[Example]) -> str:
    """README's block, marks included."""
    return add_marks(BLOCK, f"```text\n{text(found)}\n```")
