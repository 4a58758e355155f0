"""A project whose students are eight random numbers; git, DVC, MLflow, call store and registry
are the real ones.

Its dvc.yaml has the real stages up to `imitation` and the real `register`; `stub_stages.py` stands
in for what trains and judges.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from dvc_pipeline import DVC
from fake_endpoint import Body
from project_commands import commit, git
from quip.cli import skill_packs
from quip.core.params import read_params
from repository import ROOT

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
    command = f"python stub_stages.py {name.rpartition('@')[2]}"
    return {"cmd": command, "deps": ["stub_stages.py", *deps], "params": params, "outs": outs}


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
    shutil.copy(ROOT / "tests" / "support" / "stub_stages.py", folder)
    entry = {"base_url": url, "model": "m", "concurrency": 4}
    params = skill_packs.merge_params(
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
