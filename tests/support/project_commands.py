"""Commands in a project's folder, each a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

CANARY = "-".join(("sk", "test", "planted", "canary"))
"""A key that is planted in the environment; never whole in a file of ours."""
DONE: list[tuple[str, ...]] = []
"""Every command that was run in a project, for whoever compares them with what is documented."""
WHO = ("AUTHOR", "COMMITTER")


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
