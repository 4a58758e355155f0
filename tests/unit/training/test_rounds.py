"""Rounds of feedback: which training starts from which student and which preferences."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.runtime.errors import ParamsError
from quip.training import rounds


def test_one_round_starts_every_arm_from_the_warm_start() -> None:
    table = rounds.table(1, ["sft", "dpo"])
    assert table["rounds"] == 1
    assert table["attempts"] == {
        "sft": {"model": "models/sft", "to": "data", "metrics": "data/metrics"}
    }
    assert table["trainings"]["dpo"] == {
        "arm": "dpo",
        "wanted": "dpo",
        "objective": "dpo",
        "rounds": 1,
        "start": "models/sft",
        "reference": "models/sft",
        "feedback": "data/preferences.jsonl",
        "model": "models/dpo",
        "curve": "data/curves/dpo.csv",
        "run": "data/runs/dpo.json",
    }
    assert table["trainings"]["brio_dpo"]["start"] == "models/warm/brio"
    assert table["trainings"]["brio_dpo"]["objective"] == "dpo"
    assert table["trainings"]["brio"]["feedback"] == "data/rankings.jsonl"


def test_brio_dpo_starts_from_brio_on_the_teacher_s_own_texts() -> None:
    warm = rounds.table(2, ["brio_dpo"])["trainings"]["warm_brio"]
    assert (warm["arm"], warm["wanted"], warm["rounds"]) == ("brio", "brio_dpo", 1)
    assert (warm["feedback"], warm["model"]) == ("data/rank/rankings.jsonl", "models/warm/brio")


def test_with_one_round_the_arms_play_no_part() -> None:
    assert rounds.table(1, ["sft"]) == rounds.table(1, ["sft", "brio", "dpo", "brio_dpo"])


def test_each_round_starts_from_the_one_before() -> None:
    table = rounds.table(3, ["sft", "dpo"])
    first, second, last = (table["trainings"][name] for name in ("dpo-1", "dpo-2", "dpo"))
    assert (first["start"], first["feedback"]) == ("models/sft", "data/preferences.jsonl")
    assert second["start"] == "models/rounds/dpo-1"
    assert second["feedback"] == "data/rounds/dpo-1/preferences.jsonl"
    assert last["start"] == "models/rounds/dpo-2"
    assert last["feedback"] == "data/rounds/dpo-2/preferences.jsonl"
    assert {entry["reference"] for entry in (first, second, last)} == {"models/sft"}
    assert {entry["rounds"] for entry in (first, second, last)} == {3}
    assert list(table["attempts"]) == ["sft", "dpo-1", "dpo-2"], "other arms have no rounds"
    assert rounds.earlier_students(table, "dpo") == ["dpo-1", "dpo-2"]
    assert rounds.earlier_students(table, "brio") == []


def test_one_round_more_keeps_the_attempts_there_are() -> None:
    two, three = (rounds.table(n, ["sft", "dpo"])["attempts"] for n in (2, 3))
    assert {name: three[name] for name in two} == two


def test_what_is_written_is_what_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "rounds.yaml"
    for count in (1, 2, 10):
        rounds.write(count, ["sft", "brio"], file)
        assert rounds.check(["sft", "brio"], file) == count


@pytest.mark.parametrize("text", ["", "rounds: 2\nattempts: {}\ntrainings: {}\n", "rounds: many\n"])
def test_a_file_of_another_shape_is_refused_with_the_command(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rounds.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match=r"does not fit the arms.*Run `quip rounds \d`"):
        rounds.check(["sft", "dpo"], file)


def test_a_missing_file_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no such file. Run `quip rounds 1` to write it"):
        rounds.check(["sft"], tmp_path / "rounds.yaml")
