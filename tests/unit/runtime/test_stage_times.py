"""Stage times: the parts of a stage and of a run do not overlap and add up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quip.llm import scheduler
from quip.runtime import clock, paths, stage_times
from quip.runtime.stage_times import Entry


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "student_loaded", False)
    clock.seconds_by_part.clear()


def test_a_part_inside_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 13.0, 13.0, 14.0, 20.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with clock.measure("training"), clock.measure("mlflow"), clock.measure("mlflow"):
        pass
    assert clock.parts() == {"mlflow": 4.0, "training": 16.0}


def test_a_part_that_fails_is_counted_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), clock.measure("mlflow"):
        raise ZeroDivisionError
    assert clock.stack == []


def test_asking_is_divided_by_the_engine_s_timings() -> None:
    clock.seconds_by_part["asking"] = 8.0
    clock.divide("asking", {"reading": 1000, "generation": 3000})
    assert clock.parts() == {"reading": 2.0, "generation": 6.0}


def test_the_start_ends_at_the_first_load_and_not_at_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([0.2, 3.0, 9.0])
    monkeypatch.setattr(time, "process_time", lambda: next(seconds))
    clock.record_start()
    clock.record_start(by_load=True)
    clock.record_start(by_load=True)
    assert clock.parts() == {"start": 3.0}


def test_the_engine_s_timings_are_read_and_their_absence_is_none() -> None:
    body = json.dumps({"timings": {"prompt_ms": 1.5, "predicted_ms": 20}}).encode()
    assert scheduler.timings(body) == {"reading": 1500, "generation": 20000}
    assert scheduler.timings(b"{}") == {"reading": 0, "generation": 0}


SPARSE = Entry(stage="prepare", seconds=2.0, at=102.0)
TRAINED = Entry(
    stage="sft", seconds=50.0, at=160.0, parts={"start": 5.0, "training": 40.0}, repro=105.0
)
WRITTEN = Entry(stage="respond@sft", seconds=20.0, at=190.0, parts={"start": 4.0}, repro=105.0)


def test_the_parts_of_a_stage_add_up_to_it() -> None:
    for entry in (SPARSE, TRAINED, WRITTEN):
        assert sum(stage_times.seconds_by_part(entry).values()) == pytest.approx(entry.seconds)
    assert stage_times.seconds_by_part(WRITTEN)["generation"] == 16.0
    assert stage_times.seconds_by_part(TRAINED)["other"] == 5.0


def test_dvc_s_own_seconds_are_those_of_its_last_command_outside_its_stages() -> None:
    assert stage_times.dvc_seconds([SPARSE, TRAINED, WRITTEN]) == pytest.approx(85.0 - 70.0)
    assert stage_times.dvc_seconds([SPARSE]) == 0.0


def test_the_table_shows_only_parts_that_took_time() -> None:
    lines = stage_times.table([SPARSE, TRAINED, WRITTEN]).splitlines()
    assert lines[0].split() == [
        *("stage", "seconds", "share", "start", "generation", "training", "other")
    ]
    assert lines[-2].split() == ["all", "72.0", "100%", "9.0", "16.0", "40.0", "7.0"]
    assert lines[-1].split()[:3] == ["dvc", "itself", "15.0"]


def test_mlflow_metrics_leave_out_the_stage_that_logs_them(tmp_path: Path) -> None:
    file = tmp_path / "times.jsonl"
    assert stage_times.mlflow_metrics(file, "register") == {}
    late = Entry(stage="register", seconds=9.0, at=200.0, parts={"mlflow": 8.0}, repro=105.0)
    file.write_text("".join(e.model_dump_json() + "\n" for e in (TRAINED, WRITTEN, late)))
    found = stage_times.mlflow_metrics(file, "register")
    assert found["time/training"] == 40.0
    assert found["time/mlflow"] == 0.0
    assert found["time/dvc"] == 15.0


def test_a_stage_under_dvc_notes_the_start_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real DVC and a stage of its own, in a process of its own."""
    monkeypatch.chdir(tmp_path)
    script = "from quip.runtime import stage\nstage.run(lambda: open('out', 'w').close())\n"
    (tmp_path / "one.py").write_text(script)
    python = Path(sys.executable).as_posix()
    (tmp_path / "dvc.yaml").write_text(
        f"stages:\n  one:\n    cmd: {python} one.py\n    outs: [out]\n"
    )
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--no-scm", "--quiet"], check=True)
    began = time.time()
    subprocess.run([*dvc, "repro", "--quiet"], check=True)
    (entry,) = stage_times.read(paths.state("times.jsonl"))
    assert entry.stage == "one"
    assert entry.repro == pytest.approx(began, abs=2)
    assert 0 < entry.parts["start"] <= entry.seconds
    assert stage_times.dvc_seconds([entry]) > 0
