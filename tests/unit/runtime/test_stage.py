"""Stage harness: exit codes, one line and no traceback, the lock, the clock."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quip.core.jsonl import write_rows
from quip.core.records import Reference, Response
from quip.runtime import paths, stage
from quip.runtime.errors import DataError, EndpointError, ParamsError, QuipError, WeightsError
from quip.stages import judge

Project = Callable[..., Path]

SCRIPT = """
import os, sys, time
from pathlib import Path
from quip.runtime import stage

def main():
    Path(f"began-{sys.argv[1]}").touch()
    while not Path("end").exists():
        time.sleep(0.01)
    Path(f"ended-{sys.argv[1]}").touch()

stage.run(main)
"""


@pytest.fixture(autouse=True)
def here(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "align@dpo")


def exit_code(error: BaseException) -> int:
    """The exit code of a stage whose work ends with `error`."""

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        stage.run(main)
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "code"),
    [(ParamsError, 2), (DataError, 2), (WeightsError, 2), (EndpointError, 3)],
)
def test_an_error_of_the_user_is_one_line_and_its_exit_code(
    kind: type[QuipError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(kind("what was found, what to do.")) == code
    captured = capsys.readouterr()
    assert captured.err == "align@dpo: what was found, what to do.\n"
    assert captured.out == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_clear_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(OSError(number, os.strerror(number), "data/x.jsonl")) == 2
    assert capsys.readouterr().err == (
        "align@dpo: the disk is full (data/x.jsonl). Free some space and run `dvc repro` again; "
        "all finished work is kept.\n"
    )


def test_an_interrupt_says_how_to_resume(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(KeyboardInterrupt()) == 130
    assert (
        capsys.readouterr().err == "align@dpo: interrupted. Run `dvc repro` to resume from here.\n"
    )


def test_an_unexpected_error_keeps_its_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.run(main)


def test_only_a_finished_stage_has_its_time_noted() -> None:
    exit_code(DataError("no."))
    assert not Path(".quip/times.jsonl").exists()
    stage.run(lambda: None)
    (line,) = Path(".quip/times.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["stage"] == "align@dpo"


def test_local_state_stands_in_the_main_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    main = Path("main").resolve()
    monkeypatch.setenv("DVC_ROOT", str(main))
    assert paths.state("checkpoints", "x") == main / ".quip" / "checkpoints" / "x"
    monkeypatch.delenv("DVC_ROOT")
    assert paths.root() == Path.cwd().resolve()


def test_counts_and_the_first_example_of_each_drop_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage.print_counts("critique", {"asked": 1200, "unparsed": 2}, {"unparsed": "I cannot\nsay"})
    assert capsys.readouterr().out == (
        "critique: asked 1,200, unparsed 2\n  first unparsed: 'I cannot\\nsay'\n"
    )


# ---- real processes


def run_roles() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quip.stages.roles", "--out", "data/roles"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_stage_with_wrong_params_ends_with_2_and_no_traceback(project: Project) -> None:
    project(arms=["dpo"])
    result = run_roles()
    assert result.returncode == 2
    assert result.stderr == "align@dpo: params.yaml: key 'arms' must be a list that holds 'sft'.\n"


def test_a_stage_without_its_endpoint_ends_with_3_and_one_line(
    project: Project, critic_prompt: None, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0}
    judging = {"endpoints": ["nowhere"], "prompt": "critic"}
    project(endpoints={"nowhere": nowhere}, judge=judging)
    row: dict[str, Any] = {"input": "a", "split": "test", "literal": "l"}
    write_rows("responses.jsonl", [Response(**row, text="t")])
    write_rows("references.jsonl", [Reference(**row, paraphrases=["p"])])
    argv = (
        "--arm dpo --responses responses.jsonl --references references.jsonl --reward r --calls c"
    )
    with pytest.raises(SystemExit) as caught:
        stage.run(lambda: judge.main([*argv.split(), "--out", "o", "--metrics", "m"]))
    assert caught.value.code == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"align@dpo: endpoint 'nowhere' \(http://127.0.0.1:9/v1\): [12] of 2 calls "
        r"\(judge dpo \(nowhere\)\) gave no readable reply, most often: nothing answers there, "
        r"after 1 tries. 0 are done and kept; mend it and run `dvc repro` to ask for the rest.",
        last,
    )
    assert not Path("o").exists()


def test_a_file_that_cannot_grow_ends_with_2_and_leaves_the_old_one(tmp_path: Path) -> None:
    Path("rows.jsonl").write_text("old")
    code = (
        "import resource; from quip.core import jsonl; from quip.runtime import stage;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "stage.run(lambda: jsonl.write_json('rows.jsonl', 'x' * 100_000))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("align@dpo: the disk is full (")
    assert "Traceback" not in result.stderr
    assert Path("rows.jsonl").read_text() == "old"
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))


Begin = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a stage that works until the file `end` is there; its output is not a terminal."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str) -> subprocess.Popen[str]:
        env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        command = [sys.executable, "-c", SCRIPT, name]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(name: str) -> None:
    while not Path(name).exists():
        time.sleep(0.01)


def waiting_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline()


def test_a_second_process_waits_while_the_first_holds_the_stage(begin: Begin) -> None:
    first = begin("first")
    wait_for("began-first")
    second = begin("second")
    assert waiting_line(second) == (
        "align@dpo: another process is running this stage here; waiting for it to end.\n"
    )
    assert not Path("began-second").exists()
    Path("end").touch()
    assert (first.wait(), second.wait()) == (0, 0)
    assert Path("ended-second").exists()


def test_kill_9_of_the_first_lets_the_second_go_on(begin: Begin) -> None:
    first = begin("first")
    wait_for("began-first")
    second = begin("second")
    assert "waiting" in waiting_line(second)
    first.send_signal(signal.SIGKILL)
    wait_for("began-second")
    Path("end").touch()
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, 0)
    assert not Path("ended-first").exists()


def test_another_stage_does_not_wait(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begin("first")
    wait_for("began-first")
    monkeypatch.setenv("DVC_STAGE", "align@ft")
    second = begin("second")
    wait_for("began-second")
    Path("end").touch()
    assert (first.wait(), second.wait()) == (0, 0)
