"""A light project: real git, DVC, MLflow, call store and registry around students of eight numbers.

Its dvc.yaml has the real stages up to `imitation` and the real `register`; what trains and judges
is `light_stages.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from faulty import Body
from quip.cli import skill_packs
from quip.core.params import read_params
from walking import DVC, ROOT

REAL = ("roles", "prepare", "teacher", "imitation", "register")
FILES = ("params.yaml", "rounds.yaml", ".gitignore", ".dvcignore", ".dvc/config", "data/raw")
SMALL: dict[str, Any] = {
    "arms": ["sft", "dpo"],
    "prepare": {"limit": {"train": 3, "val": 1, "test": 1, "ood": 1}},
    "teacher": {"endpoint": "scripted", "train_inputs": None, "n": 2, "exemplars": 0},
    "imitation": {"max_drop_share": 1.0},
    "judge": {"endpoints": ["scripted"]},
}


OUTS = ["data/report", "data/responses"]


def stage(name: str, deps: list[str], params: list[str], outs: list[Any]) -> dict[str, Any]:
    command = f"python light_stages.py {name.rpartition('@')[2]}"
    return {"cmd": command, "deps": ["light_stages.py", *deps], "params": params, "outs": outs}


def trained(arm: str) -> list[str]:
    return [f"models/{arm}", f"data/runs/{arm}.json", f"data/curves/{arm}.csv"]


def pipeline() -> dict[str, Any]:
    align = stage("dpo", ["models/sft", "data/imitation"], ["dpo"], trained("dpo"))
    stages = {
        **{name: DVC["stages"][name] for name in REAL},
        "sft": stage("sft", ["data/imitation"], ["sft"], trained("sft")),
        "align": {"matrix": {"arm": ["dpo"]}, **align},
        "evaluate": {
            **stage("evaluate", ["models", "data/imitation"], ["dpo"], OUTS),
            "metrics": [
                {f"data/metrics/{name}.json": {"cache": False}} for name in ("wtr", "critic")
            ],
        },
    }
    return {"stages": stages}


def lay_out(folder: Path, url: str) -> Path:
    """The project in `folder`, in git, with the endpoint at `url` as its large model."""
    for name in FILES:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    shutil.copytree(
        ROOT / "src" / "quip", folder / "src" / "quip", ignore=shutil.ignore_patterns("__pyc*")
    )
    shutil.copy(ROOT / "tests" / "light_stages.py", folder)
    entry = {"base_url": url, "model": "m", "concurrency": 4}
    params = skill_packs.overlaid(
        read_params(ROOT / "params.yaml"), {**SMALL, "endpoints": {"scripted": entry}}
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline(), sort_keys=False))
    git(folder, "init", "--quiet", "--initial-branch", "main")
    commit(folder, "the project")
    return folder


def answer(body: Body) -> tuple[int, bytes, dict[str, str]]:
    """The teacher: two paraphrases that depend on what was asked."""
    asked = body["messages"][-1]["content"].split()
    words = " ".join(word for word in asked if word.isalpha())[-60:]
    texts = (f"Even the kettle laughed when {words}.", f"My shoes still tell of how {words}.")
    message = {"content": "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return 200, json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode(), {}


# ---- commands in a project -------------------------------------------------------------------


def environment(folder: Path, **more: str) -> dict[str, str]:
    """That of a shell in which this project is installed and nothing of another one is set."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("DVC_", "GIT_", "MLFLOW_TRACKING"))
    }
    who = {f"GIT_{role}_{key}": "tester@example.org" for role in WHO for key in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "true"}
    return {**kept, **who, **own, **more}


WHO = ("AUTHOR", "COMMITTER")


DONE: list[tuple[str, ...]] = []
"""Every command that was run in a project, for whoever compares them with what is documented."""


def run(folder: Path, *words: str, fails: bool = False, **more: str) -> str:
    """What the command prints; with `fails` it must not end well."""
    DONE.append(words)
    done = subprocess.run(
        words, cwd=folder, env=environment(folder, **more), capture_output=True, text=True
    )
    said = done.stdout + done.stderr
    assert bool(done.returncode) == fails, f"{' '.join(words)}: {said[-3000:]}"
    return said


def dvc(folder: Path, *words: str, fails: bool = False, **more: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *words, fails=fails, **more)


def quip(folder: Path, *words: str, **more: str) -> str:
    return run(folder, sys.executable, "-m", "quip.cli.main", *words, **more)


def git(folder: Path, *words: str) -> str:
    return run(folder, "git", *words).strip()


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)
    return git(folder, "rev-parse", "HEAD")


def ran(said: str) -> list[str]:
    """The stages that DVC ran, by what it printed."""
    return re.findall(r"Running stage '(.+)'", said)
