"""`quip try`: the whole pipeline on little data, in a folder of its own.

Copies the project's files (tracked or not, but none that git ignores) to a folder, overlays
`params.try.yaml` on params.yaml, and runs `dvc repro` there. The main checkout's outputs, call
store and MLflow database stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from quip.errors import QuipError
from quip.params import read_params


class TrialError(QuipError):
    """The small run could not be set up or did not end well."""


def make(project: Path, folder: Path) -> None:
    """Lay out the small project in `folder`, which is emptied of all but its caches."""
    keep = {".dvc", ".quip", "mlruns", "mlflow.db", ".git"}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in listed(project):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, target)
    params = overlaid(
        read_params(project / "params.yaml"), read_params(project / "params.try.yaml")
    )
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def listed(project: Path) -> list[str]:
    """The project's own files, by git: tracked ones and new ones that are not ignored."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        found = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        raise TrialError("quip try needs a git checkout of the project.") from None
    names = [name for name in found.stdout.split("\0") if name and name != "dvc.lock"]
    return [name for name in names if (project / name).is_file()]


def overlaid(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` put in, section by section."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = overlaid(old, value)
        else:
            merged[key] = value
    return merged


def repro(folder: Path, *more: str) -> int:
    """`dvc repro` in `folder`; its exit code."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    own.pop("MLFLOW_TRACKING_URI", None)
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    own["PYTHONPATH"] = str(folder / "src")
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *more], cwd=folder, env=own
    ).returncode
