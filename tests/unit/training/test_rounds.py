"""Rounds of feedback: which training starts from which student and which preferences."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.runtime.errors import ParamsError
from quip.training import rounds


def test_one_round_starts_every_arm_from_the_warm_start() -> None:
    table = rounds.table(1, ["sft", "dpo"])
    assert table["rounds"] == 1
    assert table["earlier"] == {}
    assert table["last"]["dpo"] == {
        "objective": "dpo",
        "start": "models/sft",
        "reference": "models/sft",
        "feedback": "data",
    }
    assert table["last"]["brio_dpo"]["start"] == "models/warm/brio"
    assert table["last"]["brio_dpo"]["objective"] == "dpo"


def test_with_one_round_the_arms_play_no_part() -> None:
    assert rounds.table(1, ["sft"]) == rounds.table(1, ["sft", "brio", "dpo", "brio_dpo"])


def test_each_round_starts_from_the_one_before() -> None:
    table = rounds.table(3, ["sft", "dpo"])
    first, second = table["earlier"]["dpo-1"], table["earlier"]["dpo-2"]
    assert (first["start"], first["feedback"]) == ("models/sft", "data")
    assert (second["start"], second["feedback"]) == ("models/rounds/dpo-1", "data/rounds/dpo-1")
    last = table["last"]["dpo"]
    assert (last["start"], last["feedback"]) == ("models/rounds/dpo-2", "data/rounds/dpo-2")
    assert {entry["reference"] for entry in (first, second, last)} == {"models/sft"}
    assert list(table["earlier"]) == ["dpo-1", "dpo-2"], "an arm not asked for has no rounds"


def test_one_round_more_keeps_the_entries_there_are() -> None:
    two, three = (rounds.table(n, ["sft", "dpo"])["earlier"] for n in (2, 3))
    assert {name: three[name] for name in two} == two


def test_what_is_written_is_what_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "rounds.yaml"
    for count in (1, 2, 10):
        rounds.write(count, ["sft", "brio"], file)
        assert rounds.check(["sft", "brio"], file) == count


@pytest.mark.parametrize("text", ["", "rounds: 2\nlast: {}\nearlier: {}\n", "rounds: many\n"])
def test_a_file_of_another_shape_is_refused_with_the_command(tmp_path: Path, text: str) -> None:
    file = tmp_path / "rounds.yaml"
    file.write_text(text)
    with pytest.raises(ParamsError, match=r"does not fit the arms.*Run `quip rounds \d`"):
        rounds.check(["sft", "dpo"], file)


def test_a_missing_file_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"no such file. `quip rounds 1` writes it"):
        rounds.check(["sft"], tmp_path / "rounds.yaml")
