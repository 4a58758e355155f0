"""The project with every arm, on a small student of either family."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_pipeline import ALL_ARMS
from every_arm_project import SMALL, either
from fake_endpoint import ChatServer
from quip.training import rounds
from repository import ROOT


@pytest.fixture(params=["encoder-decoder", "causal"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def arms_project(
    family: str,
    tiny_student: Path,
    tiny_bart: Path,
    scripted_project: Callable[..., Path],
    server: ChatServer,
    critic_prompt: None,
    migrated_database: Path,
    tmp_path: Path,
) -> Path:
    """A project of six inputs whose student is a small one of the family, in two rounds. The causal
    one is trained by adapters, the other in full."""
    (tmp_path / "prompts" / "teacher.txt").write_text("--- user\nSentence: {literal}\n")
    server.answer = either
    base = tiny_bart if family == "encoder-decoder" else tiny_student
    lora = {"r": 4, "alpha": 8, "dropout": 0.0} if family == "causal" else None
    changes = {**SMALL, "sft": {"base": str(base), "epochs": 2, "learning_rate": 1.0e-3}}
    folder = scripted_project(**{**changes, "align": {**SMALL["align"], "lora": lora}})
    shutil.copytree(ROOT / "data" / "raw", folder / "data" / "raw")
    shutil.copyfile(migrated_database, folder / "mlflow.db")
    rounds.write(2, ALL_ARMS)
    return folder
