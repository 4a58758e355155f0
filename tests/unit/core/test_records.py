"""Row types and JSONL files: the round trip, and errors with line and column."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from quip.core import records
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import Answer, Critique, LiteralText, Reference
from quip.runtime.errors import DataError

ROWS: list[BaseModel] = [
    LiteralText(id="t1", text="I missed my bus.", emotion="annoyed"),
    records.Exemplar(
        id="e1",
        literal="I missed my bus.",
        paraphrases=[records.Paraphrase(text="My bus and I broke up.", device="irony")],
    ),
    records.GoldPair(id="g1", kind="plain", half="tune", literal="l", better="b", worse="w"),
    records.Reply(input="t1", split="train", literal="l", text="1. a\n2. b", finish_reason="stop"),
    records.TrainingPair(input="t1", literal="l", paraphrase="p"),
    Reference(input="t1", split="val", literal="l", paraphrases=["a", "b"]),
    records.Candidate(input="t1", split="test", literal="l", sample=3, text=""),
    records.Response(input="t1", split="ood", literal="l", text="r"),
    Critique(
        input="g1",
        split="gold",
        literal="l",
        name_a="better",
        name_b="worse",
        a="x",
        b="y",
        judge="embedded",
        forward=Answer(p_first=0.25, source="logprobs", raw="2"),
        backward=Answer(p_first=None, source="unread", raw="?"),
    ),
    records.Meaning(name="dpo", input="t1", split="test", cosine=0.5),
    records.Preference(input="t1", literal="l", chosen="c", rejected="r", confidence=0.75),
    records.Ranking(input="t1", literal="l", texts=["a", "b"], scores=[0.9, 0.1], ranks=[0, 1]),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: type(row).__name__)
def test_a_row_written_is_the_row_read(row: BaseModel, tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows.jsonl", [row, row]) == 2
    assert read_rows(tmp_path / "rows.jsonl", type(row)) == [row, row]


def test_every_row_type_makes_the_round_trip() -> None:
    nested = {records.Row, records.Paraphrase, Answer}
    known = {row for row in records.Row.__subclasses__() if row.__module__ == records.__name__}
    assert {type(row) for row in ROWS} == known - nested


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.floats(0, 1))
def test_no_text_and_no_number_is_changed_by_a_file(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    row = records.Preference(input="i", literal=text, chosen="", rejected="", confidence=number)
    write_rows(path, [row, row])
    assert read_rows(path, records.Preference) == [row, row]


def test_a_row_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ROWS[0].text = "other"  # type: ignore[attr-defined]


GOOD = '{"id": "a", "text": "I ran."}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": the file holds no rows."),
        ("\n  \n", ": the file holds no rows."),
        (GOOD + '{"id": "b", text}\n', ", line 2, column 13: not JSON (Expecting property name"),
        (GOOD + "\n" + GOOD[:20], ", line 3, column 21: not JSON (Expecting value)."),
        (GOOD + '{"id": "b"}\n', ", line 2: field 'text': Field required."),
        (GOOD + '{"id": 7, "text": "x"}\n', ", line 2: field 'id': Input should be a valid string"),
        ('{"id": "a", "text": ""}\n', ", line 1: field 'text': String should have at least 1"),
        ('{"id": "a", "text": "x", "tone": "dry"}\n', ", line 1: field 'tone': Extra inputs are"),
        ('["a"]\n', ", line 1: field 'row': Input should be a valid dictionary"),
    ],
)
def test_a_bad_file_is_named_by_line_and_column(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_rows(path, LiteralText)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(tmp_path / "no.jsonl", LiteralText)
    wanted = f"{tmp_path}/no.jsonl: no such file. Run `dvc repro` (or `dvc pull`) to make it."
    assert str(caught.value) == wanted


def test_a_mistake_inside_a_nested_row_is_named_by_its_path(tmp_path: Path) -> None:
    row: dict[str, Any] = json.loads(ROWS[8].model_dump_json())
    row["backward"]["p_first"] = "high"
    path = tmp_path / "critique.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: field 'backward.p_first': Input should be"):
        read_rows(path, Critique)


def test_an_unknown_split_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"input": "a", "split": "dev", "literal": "l", "text": "t"}', encoding="utf-8")
    with pytest.raises(DataError, match="field 'split': Input should be 'train', 'val', 'test'"):
        read_rows(path, records.Response)


def test_an_error_half_way_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS[:1])
    before = path.read_bytes()

    def rows() -> Any:
        yield ROWS[0]
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_rows(path, rows())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_file_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"

    def rows() -> Any:
        yield ROWS[0]
        assert not path.exists()

    write_rows(path, rows())
    assert path.exists()


def test_a_number_that_json_does_not_know_is_refused_and_the_old_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"b": 1, "a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ü"\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"b": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": "ü"}
    assert os.listdir(tmp_path) == ["metrics.json"]
