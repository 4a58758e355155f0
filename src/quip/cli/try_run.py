"""`quip try`: the whole pipeline on little data, in a folder of its own.

Copies the project's files (all but those that git ignores) to a folder, installs the skill pack if
one is named, overlays `params.try.yaml` on params.yaml, and runs `dvc repro` there. The main
checkout's outputs, call store and MLflow database stay unchanged.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from quip.cli import skill_packs
from quip.runtime.errors import QuipError


class TrialError(QuipError):
    """The small run cannot be set up."""


def lay_out(project: Path, folder: Path, pack: Path | None = None) -> None:
    """Lay out the small project in `folder`; removes all that is there but caches and stores."""
    keep = {".dvc", ".quip", "mlruns", "mlflow.db", ".git"}
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy_files(project, folder, project_files(project))
    if pack:
        skill_packs.install_pack(pack, folder)
    skill_packs.overlay_file(folder / "params.yaml", folder / "params.try.yaml")
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)


def copy_files(project: Path, folder: Path, names: Iterable[str]) -> None:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, target)


def project_files(project: Path) -> list[str]:
    """The project's files by git: tracked files, and new files that are not ignored. Raises
    TrialError outside a git checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        found = subprocess.run(command, cwd=project, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        raise TrialError("this is no git checkout of the project. Run it from its root.") from None
    names = [name for name in found.stdout.split("\0") if name and name != "dvc.lock"]
    return [name for name in names if (project / name).is_file()]


def repro(folder: Path, *more: str) -> int:
    """Run `dvc repro` in `folder`; returns its exit code."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    own.pop("MLFLOW_TRACKING_URI", None)
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    own["PYTHONPATH"] = str(folder / "src")
    return subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *more], cwd=folder, env=own
    ).returncode
