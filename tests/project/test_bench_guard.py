"""The regression guard of the benches: what it calls slower, and what recording keeps."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
import guard


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ratios.json"
    monkeypatch.setattr(guard, "RATIOS", file)
    guard.save({"dpo": 2.0, "sft": 1.4})
    return file


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(1.7, "SLOWER"), (1.85, "as recorded"), (2.0, "as recorded"), (2.5, "faster")],
)
def test_a_ratio_is_compared_with_the_recorded_one(
    recorded: Path, now: float, verdict: str
) -> None:
    line, *_, last = guard.report({"dpo": now}).splitlines()[1:]
    assert line.split()[1:3] == [f"{now:.2f}", "2.00"]
    assert line.endswith(verdict)
    assert ("dpo" in last) is (verdict == "SLOWER")


def test_a_ratio_never_recorded_is_new_and_not_slower(recorded: Path) -> None:
    assert guard.report({"serving": 0.1}).splitlines()[1].endswith("new")
    assert "slower than recorded: nothing" in guard.report({"serving": 0.1})


def test_recording_replaces_by_name_and_keeps_the_others(recorded: Path) -> None:
    guard.save({"sft": 1.6})
    rows = guard.read()
    assert {name: row["ratio"] for name, row in rows.items()} == {"dpo": 2.0, "sft": 1.6}
    assert all("cores" in row["hardware"] and row["date"] for row in rows.values())


def test_nothing_is_recorded_unless_asked(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECORD", raising=False)
    guard.report_and_record({"dpo": 9.0})
    assert guard.read()["dpo"]["ratio"] == 2.0
    monkeypatch.setenv("RECORD", "1")
    guard.report_and_record({"dpo": 9.0})
    assert guard.read()["dpo"]["ratio"] == 9.0
