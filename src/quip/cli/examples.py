"""`quip examples`: test sentences beside the texts of the teacher and of every trained student.

The sentences are ordered by the sha256 of their ids, as in the report, so that nobody chooses
which are shown. README.md holds the same texts between two marks.
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
"""Author -> text: `literal`, `teacher`, then the arms, `sft` first."""


def read_examples(
    count: int, references: Path = REFERENCES, responses: Path = RESPONSES
) -> list[Example]:
    """The first `count` test sentences by the digest of their ids, with their texts.

    Raises DataError when no student has answered yet or a file cannot be read.
    """
    arms = [arm for arm in KNOWN_ARMS if (responses / f"{arm}.jsonl").is_file()]
    if not arms:
        raise DataError(f"{responses}: no answers yet. Run `make run` or `dvc repro`.")
    answers = {arm: read_rows(responses / f"{arm}.jsonl", Response) for arm in arms}
    return examples(sample_inputs(read_rows(references, Reference), "test", count), answers)


def examples(
    references: Sequence[Reference], answers: Mapping[str, Sequence[Response]]
) -> list[Example]:
    """For every reference: the literal, the teacher's first text, and each arm's answer if any."""
    texts = {arm: {row.input: row.text for row in rows} for arm, rows in answers.items()}
    return [
        {"literal": row.literal, "teacher": row.paraphrases[0]}
        | {arm: found[row.input] for arm, found in texts.items() if row.input in found}
        for row in references
    ]


def as_text(found: Sequence[Example]) -> str:
    """The examples as text: a paragraph each, a line per author."""
    return "\n\n".join("\n".join(example_lines(example)) for example in found)


def example_lines(example: Example) -> Iterator[str]:
    indent = max(map(len, example)) + 2
    for author, text in example.items():
        one_line = " ".join(text.split())
        yield fill(author.ljust(indent) + one_line, WIDTH, subsequent_indent=" " * indent)


def as_markdown(found: Sequence[Example]) -> str:
    """The block of README.md, marks included."""
    return add_marks(BLOCK, f"```text\n{as_text(found)}\n```")
