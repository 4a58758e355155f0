"""Fixtures that several test files share."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from checkout_status import unchanged
from fake_endpoint import CRITIC_PROMPT, ChatServer
from project_commands import CANARY
from quip.cli import try_run
from quip.cli.skill_packs import merge_params
from quip.core.params import read_params
from quip.llm.requests import prompts
from quip.tracking import mlflow_store
from repository import ROOT, SHIPPED_PARAMS
from tiny_models import make_tiny_bart, make_tiny_student


@pytest.fixture(scope="session", autouse=True)
def unchanged_checkout() -> Iterator[None]:
    """No test writes into this checkout."""
    with unchanged(ROOT):
        yield


@pytest.fixture
def server() -> Iterator[ChatServer]:
    script = ChatServer()
    threading.Thread(target=script.http.serve_forever, args=(0.01,), daemon=True).start()
    yield script
    script.http.shutdown()
    script.http.server_close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`project(section={"key": value})` makes a folder with the shipped params.yaml, changed so,
    the working directory; called again it only writes params.yaml anew."""
    folder = tmp_path / "project"
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)

    def make(**changes: Any) -> Path:
        folder.mkdir(exist_ok=True)
        params = merge_params(read_params(SHIPPED_PARAMS), changes)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture
def scripted_project(server: ChatServer, project: Callable[..., Path]) -> Callable[..., Path]:
    """As `project`, with the scripted server as teacher, critic and judge (model "m")."""
    roles: dict[str, Any] = {
        "endpoints": {"scripted": {"base_url": server.url, "model": "m", "concurrency": 1}},
        "teacher": {"endpoint": "scripted"},
        "critic": {"kind": "mcp", "endpoint": "scripted", "prompt": "critic", "samples": 3},
        "judge": {"endpoints": ["scripted"], "learned": False, "prompt": "critic", "samples": 3},
    }
    return lambda **changes: project(**merge_params(roles, changes))


@pytest.fixture
def critic_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `critic` prompt whose texts `shown` can read back, whatever the shipped one says."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "critic.txt").write_text(CRITIC_PROMPT, encoding="utf-8")
    monkeypatch.setattr(prompts, "FOLDER", folder)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database. Making one takes seconds, copying it nothing."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_store.mlflow_module()
    mlflow_store.create_database(file)
    return file


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_database: Path) -> Path:
    """An empty checkout as working directory, with a tracking store of its own."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copyfile(migrated_database, root / "mlflow.db")
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    return root


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, run once with real weights and a real `dvc repro`: minutes."""
    folder = tmp_path_factory.mktemp("small")
    try_run.lay_out(ROOT, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", CANARY)
        assert try_run.repro(folder) == 0
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "student"
    make_tiny_student(folder)
    return folder


@pytest.fixture
def tiny_student(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random little Llama and a tokenizer trained on two sentences.

    One thread: two of them wait for each other longer than they compute, on a busy machine.
    """
    monkeypatch.setattr("quip.models.student.cores", lambda: 1)
    return tiny_weights


@pytest.fixture(scope="session")
def bart_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "bart"
    make_tiny_bart(folder)
    return folder


@pytest.fixture
def tiny_bart(bart_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random little BART and a tokenizer trained on the shipped literals."""
    monkeypatch.setattr("quip.models.student.cores", lambda: 1)
    return bart_weights
