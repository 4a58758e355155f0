"""tracking: the live run, the store under the main checkout, and runs rebuilt from files."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from quip.runtime.errors import DataError
from quip.tracking import backfill as backfill_module
from quip.tracking import mlflow_store, outbox
from quip.tracking import runs as runs_module

CURVE = "step,loss,eval_loss\n1,2.0,\n2,1.5,1.7\n3,1.0,\n"


def stored(run_id: str) -> Any:
    return mlflow_store.connect().client.get_run(run_id)


def history(run_id: str, key: str) -> list[tuple[int, float]]:
    found = mlflow_store.connect().client.get_metric_history(run_id, key)
    return sorted((metric.step, metric.value) for metric in found)


def write_pointer(run_id: str | None = "", sha: str = "abc", **more: Any) -> Path:
    path = Path("dpo.json")
    fields = {"run_id": run_id, "stage": "align@dpo", "model_sha256": sha, "seconds": 90, **more}
    path.write_text(json.dumps(fields))
    return path


def write_curve(text: str = CURVE) -> Path:
    path = Path("dpo.csv")
    path.write_text(text)
    return path


def backfill() -> str:
    return backfill_module.backfill("align@dpo", write_curve(), {"beta": 0.1}, Path("dpo.json"))


# ---- the live run


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, quip.tracking.runs; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_holds_its_name_params_curve_tags_and_data(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-cat")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "f00")
    Path("pairs.jsonl").write_text("hello\n")
    with runs_module.run("align@dpo", {"beta": 0.1}, {"train": Path("pairs.jsonl")}) as run:
        run.log(1, {"loss": 2.0, "reward_margin": 0.0})
        run.log(2, {"loss": 1.0})
    found = stored(run.id)
    assert (found.info.run_name, found.info.status) == ("align@dpo", "FINISHED")
    assert found.data.params == {"beta": "0.1"}
    assert history(run.id, "loss") == [(1, 2.0), (2, 1.0)]
    assert found.data.tags["quip.stage"] == "align@dpo"
    assert found.data.tags["dvc.exp.name"] == "bumpy-cat"
    assert found.data.tags["dvc.exp.baseline"] == "f00"
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("pairs.jsonl", "train")
    assert used.dataset.digest == "b1946ac92492d2347c6235b4d2611184"


def test_the_commit_is_a_tag_in_a_git_checkout(checkout: Path) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    with runs_module.run("sft", {}, {}) as run:
        pass
    assert stored(run.id).data.tags["git.commit"] == head.stdout.strip()


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "FAILED"), (SystemExit, "FAILED"), (KeyboardInterrupt, "KILLED")],
)
def test_an_exception_marks_the_run_and_is_passed_on(
    checkout: Path, error: type[BaseException], status: str
) -> None:
    runs = []

    def training() -> None:
        with runs_module.run("sft", {}, {}) as run:
            runs.append(run.id)
            run.log(1, {"loss": 1.0})
            raise error

    with pytest.raises(error):
        training()
    assert stored(runs[0]).info.status == status
    assert history(runs[0], "loss") == [(1, 1.0)]


def test_a_run_that_kill_9_left_open_is_closed_by_the_next_one(checkout: Path) -> None:
    code = (
        "import os; from quip.tracking import runs\n"
        "with runs.run('sft', {}, {}) as run:\n"
        "    print(run.id, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    killed = done.stdout.strip()
    assert stored(killed).info.status == "RUNNING"
    with runs_module.run("sft", {}, {}), runs_module.run("sft", {}, {}) as other:
        pass
    assert stored(killed).info.status == "KILLED"
    assert stored(other.id).info.status == "FINISHED"


def test_points_are_sent_in_batches_and_none_is_lost(checkout: Path) -> None:
    with runs_module.run("sft", {}, {}) as run:
        for step in range(1200):
            run.log(step, {"loss": float(step)})
        assert len(history(run.id, "loss")) < 1200
    assert len(history(run.id, "loss")) == 1200


# ---- a store that cannot be used


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "no-such-scheme://x"])
def test_training_goes_on_without_a_store(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with runs_module.run("sft", {"epochs": 1}, {}) as run:
        run.log(1, {"loss": 1.0})
    errors = capsys.readouterr().err.splitlines()
    assert len([line for line in errors if line.startswith("MLflow could not be used")]) == 1
    assert kept() == [run.id]


def test_training_goes_on_with_a_damaged_database(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mlflow.db").write_text("this is not a database " * 100)
    with runs_module.run("sft", {}, {}) as run:
        run.log(1, {"loss": 1.0})
    assert "Training goes on" in capsys.readouterr().err
    assert kept() == [run.id]


def kept() -> list[str]:
    """The keys of the journals in the outbox, oldest first."""
    return [path.stem.rpartition("-")[2] for path in sorted(outbox.folder().glob("*.jsonl"))]


@contextmanager
def unreachable_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        yield


def test_kept_journals_are_sent_when_the_store_is_opened(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "bumpy-cat")
    Path("pairs.jsonl").write_text("hello\n")
    with unreachable_server(monkeypatch):
        with runs_module.run("sft", {"epochs": 1}, {"train": Path("pairs.jsonl")}) as run:
            run.log(1, {"loss": 2.0, "eval_loss": math.nan})
        with runs_module.run("align@dpo", {"beta": 0.1}, {}):
            pass
    monkeypatch.delenv("DVC_EXP_NAME")
    write_pointer(run_id=run.id)
    with runs_module.require_store() as store:
        second, first = store.client.search_runs([store.experiment])
    assert "MLflow: sent what was kept of 2 runs." in capsys.readouterr().err
    assert kept() == []
    assert (first.info.run_name, first.info.status) == ("sft", "FINISHED")
    assert (second.info.run_name, second.data.params) == ("align@dpo", {"beta": "0.1"})
    assert first.info.end_time <= second.info.start_time
    assert first.data.tags["dvc.exp.name"] == "bumpy-cat"
    assert history(first.info.run_id, "loss") == [(1, 2.0)]
    assert [used.dataset.name for used in first.inputs.dataset_inputs] == ["pairs.jsonl"]
    # The pointer of such a run names it by its key, and the files complete it.
    assert backfill() == first.info.run_id
    assert history(first.info.run_id, "loss") == [(1, 2.0), (2, 1.5), (3, 1.0)]


def test_a_journal_that_is_sent_twice_leaves_one_run_and_each_point_once(checkout: Path) -> None:
    with runs_module.run("sft", {"epochs": 1}, {}) as run:
        run.log(1, {"loss": 2.0, "eval_loss": math.nan})
        run.flush()
        copy = run.journal.path.read_bytes() if run.journal else b""
    (outbox.folder() / f"1-{stored(run.id).data.tags[runs_module.KEY_TAG]}.jsonl").write_bytes(copy)
    ended = stored(run.id).info.end_time
    with runs_module.require_store() as store:
        (found,) = store.client.search_runs([store.experiment])
    assert found.info.run_id == run.id
    assert history(run.id, "loss") == [(1, 2.0)]
    assert len(history(run.id, "eval_loss")) == 1
    assert ended is not None


def test_the_journal_of_a_living_run_is_left_to_it(checkout: Path) -> None:
    with runs_module.run("sft", {}, {}) as run, runs_module.require_store():
        assert len(kept()) == 1
        assert stored(run.id).info.status == "RUNNING"
    assert kept() == []


def test_what_mlflow_refuses_is_put_aside_and_the_rest_is_sent(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with unreachable_server(monkeypatch):
        with runs_module.run("sft", {"no//name": 1}, {}):
            pass
        with runs_module.run("align@dpo", {}, {}):
            pass
    (outbox.folder() / "1-abc.jsonl").write_text('{"kind": "new"}\n')
    with runs_module.require_store() as store:
        names = [run.info.run_name for run in store.client.search_runs([store.experiment])]
    assert names[0] == "align@dpo"
    assert kept() == []
    assert len(list(outbox.folder().glob("*.refused"))) == 2
    assert capsys.readouterr().err.count("MLflow does not take") == 2


def test_a_full_disk_does_not_stop_training(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on the size of files stands for the disk."""
    code = (
        "import resource; from quip.tracking import runs\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "with runs.run('sft', {}, {}) as run:\n"
        "    for step in range(200): run.log(step, {'loss': 1.0})\n"
        "print('trained')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "trained\n")
    assert done.stderr.count("MLflow could not be used") == 1


def test_a_server_that_hangs_holds_up_training_for_seconds(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and never answers; each try ends by its own time-out, shortened here."""
    monkeypatch.setattr(
        mlflow_store, "SHORT_TIMEOUTS", {**mlflow_store.SHORT_TIMEOUTS, **dict([SHORT])}
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{host}:{port}")
        with runs_module.run("sft", {}, {}) as run:
            for step in range(3):
                run.log(step, {"loss": 1.0})
        listener.settimeout(0.1)
        assert tries(listener) == 2  # at the start and at the end; none while the store rests
    assert kept() == [run.id]
    assert (
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]
        == mlflow_store.DEFAULT_ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"]
    )


SHORT = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def tries(listener: socket.socket) -> int:
    """How many connections wait to be taken."""
    for count in range(100):
        try:
            listener.accept()[0].close()
        except TimeoutError:
            return count
    return 100


# ---- where the store lies


def test_four_processes_at_once_on_a_fresh_folder_all_succeed(tmp_path: Path) -> None:
    code = "from quip.tracking import runs\nwith runs.run('sft', {}, {}) as run: print(run.id)"
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "DVC_ROOT")
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 4, ended
    assert len({out.strip() for out, _ in ended} - {""}) == 4, ended
    with sqlite3.connect(tmp_path / "mlflow.db") as rows:
        assert rows.execute("select count(*) from runs where status = 'FINISHED'").fetchone() == (
            4,
        )
        assert rows.execute("select count(*) from experiments where name = 'quip'").fetchone() == (
            1,
        )


def test_a_temporary_experiment_folder_writes_to_the_main_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "exps" / "tmp1"
    temporary.mkdir(parents=True)
    monkeypatch.chdir(temporary)
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    with runs_module.run("sft", {}, {}) as run:
        Path("page.html").write_text("<p>")
        mlflow_store.connect().client.log_artifact(run.id, "page.html")
    assert (checkout / "mlruns" / run.id / "artifacts" / "page.html").is_file()
    assert sorted(path.name for path in temporary.iterdir()) == ["page.html"]


def test_a_relative_database_is_the_same_one_from_every_folder(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    (checkout / "sub").mkdir()
    monkeypatch.chdir(checkout / "sub")
    assert mlflow_store.store_uri() == f"sqlite:///{checkout}/mlflow.db"


def test_a_moved_checkout_starts_a_new_experiment_with_artifacts_of_its_own(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = mlflow_store.connect().experiment
    moved = checkout.with_name("moved")
    shutil.copytree(checkout, moved)
    monkeypatch.chdir(moved)
    store = mlflow_store.connect()
    assert store.experiment != first
    location = store.client.get_experiment(store.experiment).artifact_location
    assert location == (moved / "mlruns").as_uri()
    assert mlflow_store.connect().experiment == store.experiment


def test_the_global_address_of_mlflow_is_left_as_it_was(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow_store.use_store(mlflow_store.connect()) as mlflow:
        assert mlflow.get_tracking_uri() == mlflow_store.default_uri()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    with mlflow_store.use_store(mlflow_store.Store(None, "1", "sqlite:///x.db")):
        pass
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///other.db"


def test_no_secret_of_the_environment_reaches_the_store(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"OPENAI_API_KEY": "sk-1234567890abcdef", "HF_TOKEN": "hf_abcdefghijkl"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_EXP_NAME", "with-hf_abcdefghijkl")
    params = {"base_url": "https://user:hunter22@example.org/v1?key=sk-1234567890abcdef"}
    with runs_module.run("sft", params, {}) as run:
        run.log(1, {"loss": 1.0})
    assert stored(run.id).data.params["base_url"] == "https://***@example.org/v1?key=***"
    dump = Path("mlflow.db").read_bytes()
    for secret in [*secrets.values(), "hunter22"]:
        assert secret.encode() not in dump


# ---- runs rebuilt from files


def test_backfill_makes_a_run_from_files_and_finds_it_again(checkout: Path) -> None:
    write_pointer(run_id="ffff0000", sha="abc")
    made = backfill()
    found = stored(made)
    assert (found.info.run_name, found.info.status) == ("align@dpo", "FINISHED")
    assert found.data.params == {"beta": "0.1"}
    assert history(made, "loss") == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert history(made, "eval_loss") == [(2, 1.7)]
    assert 89_000 <= found.info.end_time - found.info.start_time <= 120_000
    assert backfill() == made
    assert len(history(made, "loss")) == 3


def test_backfill_completes_the_live_run_and_makes_no_other(checkout: Path) -> None:
    with runs_module.run("align@dpo", {}, {}) as run:
        run.log(1, {"loss": 2.0})
    write_pointer(run_id=run.id)
    ended = stored(run.id).info.end_time
    assert backfill() == run.id
    assert history(run.id, "loss") == [(1, 2.0), (2, 1.5), (3, 1.0)]
    assert stored(run.id).data.tags["quip.model_sha256"] == "abc"
    assert stored(run.id).info.end_time == ended


def test_backfill_closes_a_run_that_lost_its_store_half_way(checkout: Path) -> None:
    store = mlflow_store.connect()
    open_run = runs_module.create_run(store, "align@dpo", {}, {})
    write_pointer(run_id=open_run)
    assert backfill() == open_run
    assert stored(open_run).info.status == "FINISHED"


def test_equal_weights_of_another_stage_are_another_run(checkout: Path) -> None:
    pointer = write_pointer()
    first = backfill_module.backfill("sft", write_curve(), {}, pointer)
    assert backfill_module.backfill("align@dpo", write_curve(), {}, pointer) != first


def test_backfill_without_a_store_says_so_in_one_line(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_pointer()
    with pytest.raises(mlflow_store.TrackingError, match="could not be used") as caught:
        backfill()
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n1,2.0\n2,many\n", r"dpo\.csv, line 3: not a row of a curve"),
        ("loss\n1\n", r"dpo\.csv, line 2: not a row of a curve"),
    ],
)
def test_a_malformed_curve_is_named_by_line(checkout: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        backfill_module.read_curve(write_curve(text))


@pytest.mark.parametrize("text", ["{", "[]", '{"run_id": "x"}'])
def test_a_malformed_run_file_is_refused(checkout: Path, text: str) -> None:
    Path("dpo.json").write_text(text)
    with pytest.raises(DataError, match=r"dpo\.json: expected a JSON object with run_id"):
        backfill_module.read_pointer(Path("dpo.json"))
