"""A tracking server elsewhere: the real `mlflow server` on a real PostgreSQL. It works from every
stage, and it dies on the way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dvc_pipeline import ALL_ARMS, expanded, walk
from every_arm_project import ELSEWHERE
from faulty_endpoint import FaultyServer
from project_commands import commit, dvc, environment, quip, ran
from quip.tracking import backfill, lineage, mlflow_store
from quip.training import rounds
from servers import MlflowServer, Postgres, postgres_program
from stub_project import answer, lay_out

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (postgres_program("initdb") and postgres_program("postgres")),
        reason="PostgreSQL's initdb and postgres are not installed (.ci/run installs them)",
    ),
]


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    artifacts = tmp_path_factory.mktemp("artifacts")
    with Postgres() as database, MlflowServer(database.url, artifacts) as found:
        yield found


@pytest.fixture
def store(tracker: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> mlflow_store.Store:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.url)
    return mlflow_store.connect()


@pytest.fixture(scope="module")
def stub(tracker: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with FaultyServer() as endpoint:
        endpoint.answer = answer
        folder = lay_out(tmp_path_factory.mktemp("stub"), endpoint.url)
        dvc(folder, "repro", MLFLOW_TRACKING_URI=tracker.url)
        commit(folder, "a run")
        yield folder


def runs_of(store: mlflow_store.Store, stage: str) -> list[Any]:
    """Newest first."""
    query = f"tags.\"quip.stage\" = '{stage}'"
    return list(store.client.search_runs([store.experiment], query))


def curve(store: mlflow_store.Store, run: Any) -> list[int]:
    found = store.client.get_metric_history(run.info.run_id, "loss")
    return [point.step for point in found]


def test_runs_versions_and_artifacts_are_the_server_s(
    stub: Path, tracker: MlflowServer, store: mlflow_store.Store
) -> None:
    assert not [*stub.glob("mlflow.db*"), *stub.glob("mlruns")]
    (run,) = runs_of(store, "align@dpo")
    assert (run.info.status, curve(store, run)) == ("FINISHED", [1, 2, 3, 4])
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    assert "2        dpo" in quip(stub, "versions", MLFLOW_TRACKING_URI=tracker.url)
    told = quip(stub, "trace", "champion", MLFLOW_TRACKING_URI=tracker.url)
    assert "calls   teacher m at endpoint scripted" in told
    with mlflow_store.use_store(store) as mlflow:
        kept = Path(mlflow.artifacts.download_artifacts("models:/quip-student@champion"))
    assert (kept / "MLmodel").is_file()
    assert lineage.model_digest(kept / "artifacts" / "dpo") == lineage.model_digest(
        stub / "models" / "dpo"
    )


def test_a_server_that_dies_during_training_is_told_the_rest_by_the_next_repro(
    stub: Path, tracker: MlflowServer, store: mlflow_store.Store, tmp_path: Path
) -> None:
    half_way, before = tmp_path / "half_way", len(runs_of(store, "align@dpo"))
    own = environment(stub, MLFLOW_TRACKING_URI=tracker.url, HALF_WAY=str(half_way))
    command = [sys.executable, "-m", "dvc", "exp", "run", "--name", "down", "-S", "dpo.beta=0.3"]
    training = subprocess.Popen(
        command, cwd=stub, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while not half_way.exists():
        assert training.poll() is None
        time.sleep(0.05)
    tracker.kill()
    half_way.unlink()
    said, _ = training.communicate()
    assert ran(said) == ["align@dpo", "evaluate", "register"]
    assert said.count("MLflow could not be used") == 2  # once by the training, once by register
    assert "exited with 3" in said
    assert len(list((stub / ".quip" / "outbox").iterdir())) == 1
    tracker.start()
    said = dvc(stub, "repro", MLFLOW_TRACKING_URI=tracker.url)
    assert ran(said) == ["register"]
    assert "MLflow: sent what was kept of 1 run." in said
    assert not list((stub / ".quip" / "outbox").iterdir())
    newest, *older = runs_of(store, "align@dpo")
    assert len(older) == before
    assert (newest.info.status, curve(store, newest)) == ("FINISHED", [1, 2, 3, 4])
    assert newest.data.tags["dvc.exp.name"] == "down"
    assert "quip.backfilled" not in newest.data.tags
    versions = store.client.search_model_versions("name = 'quip-student'")
    assert [v.tags["dvc.exp.name"] for v in versions if v.run_id == newest.info.run_id] == ["down"]


@pytest.fixture
def family() -> str:
    return "causal"


def test_every_training_stage_logs_to_the_server(
    arms_project: Path,
    tracker: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The real ones, on a small student, in a run of their own each."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.url)
    monkeypatch.setattr(mlflow_store, "EXPERIMENT", "every stage")
    Path("mlflow.db").unlink()
    rounds.write(1, ALL_ARMS)
    walk(expanded(1), without=[*ELSEWHERE, "respond", "judge", "duel"])
    store = mlflow_store.connect()
    runs = {run.info.run_id: run for run in store.client.search_runs([store.experiment])}
    pointers = [*Path("data/runs").glob("*.json"), Path("data/rank/run.json")]
    assert {backfill.read_pointer(file)["run_id"] for file in pointers} == set(runs)
    assert len(runs) == len(ALL_ARMS) + 1
    for run in runs.values():
        assert run.info.status == "FINISHED"
        assert curve(store, run)
        assert run.inputs.dataset_inputs
    assert not Path("mlflow.db").exists()
