"""`quip examples`: choice and order of the sentences, and the block of README.md."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quip.cli import examples
from quip.cli.main import app
from quip.core.jsonl import write_rows
from quip.core.records import Reference, Response
from quip.reporting.marked_block import add_marks
from quip.runtime.errors import DataError

ROOT = Path(__file__).parents[3]
IDS = [f"s{number}" for number in range(9)]


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in which two students have answered nine test sentences and one of val."""
    monkeypatch.chdir(tmp_path)
    references = [
        Reference(input=key, split="test", literal=f"{key} literal", paraphrases=[f"{key} taught"])
        for key in IDS
    ]
    other = Reference(input="v", split="val", literal="no", paraphrases=["no"])
    os.makedirs("data/imitation")
    os.makedirs("data/responses")
    write_rows(examples.REFERENCES, [other, *references])
    for arm in ("dpo", "sft"):
        rows = [
            Response(input=key, split="test", literal=f"{key} literal", text=f"{key} by {arm}")
            for key in IDS
        ]
        write_rows(examples.RESPONSES / f"{arm}.jsonl", rows)
    return tmp_path


def test_the_sentences_are_the_first_by_the_digest_of_their_id(finished: Path) -> None:
    wanted = sorted(IDS, key=lambda key: sha256(key.encode()).hexdigest())
    found = examples.read_examples(4)
    assert [example["literal"] for example in found] == [f"{key} literal" for key in wanted[:4]]


def test_every_text_has_the_name_of_its_author_and_sft_is_the_first_arm(
    finished: Path,
) -> None:
    [found] = examples.read_examples(1)
    key = found["literal"].split()[0]
    assert list(found.items()) == [
        ("literal", f"{key} literal"),
        ("teacher", f"{key} taught"),
        ("sft", f"{key} by sft"),
        ("dpo", f"{key} by dpo"),
    ]


def test_an_arm_that_has_not_answered_a_sentence_is_left_out_there() -> None:
    reference = Reference(input="a", split="test", literal="l", paraphrases=["t"])
    other = Response(input="b", split="test", literal="m", text="x")
    assert examples.examples([reference], {"sft": [other]}) == [{"literal": "l", "teacher": "t"}]


def test_the_command_prints_one_text_a_line(finished: Path) -> None:
    done = CliRunner().invoke(app, ["examples", "--n", "2"])
    assert done.exit_code == 0
    assert done.output == examples.as_text(examples.read_examples(2)) + "\n"
    assert [line.split()[0] for line in done.output.splitlines() if line] == [
        *("literal", "teacher", "sft", "dpo"),
    ] * 2


def test_a_long_text_is_wrapped_with_an_indent() -> None:
    [first, *rest] = examples.as_text([{"literal": "word " * 60, "sft": "x"}]).splitlines()
    assert first.startswith("literal  word")
    assert rest[0].startswith("         word")
    assert rest[-1] == "sft      x"
    assert max(map(len, [first, *rest])) <= examples.WIDTH


def test_the_readme_keeps_a_block_of_the_form_that_the_command_writes(finished: Path) -> None:
    """The texts are those of another run; marks, fence, names and their order are compared."""
    done = CliRunner().invoke(app, ["examples", "--markdown"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start, end = (readme.index(mark) for mark in ("<!-- examples -->", "<!-- /examples -->"))
    kept = readme[start:end] + "<!-- /examples -->\n"
    assert form(kept) == form(done.output)
    assert len(form(kept)) == 3 * 4 + 2 + 4


def form(block: str) -> list[str]:
    """Each line without what was written: marks, fences, empty lines, and the names of writers."""
    return [line.split("  ")[0] for line in block.splitlines() if not line.startswith("  ")]


def test_before_any_student_has_answered_the_command_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/responses: no answers yet\. Run `make run`"):
        examples.read_examples(3)


def test_the_block_stands_between_marks() -> None:
    assert examples.as_markdown([{"literal": "a"}]) == add_marks(
        "examples", "```text\nliteral  a\n```"
    )
