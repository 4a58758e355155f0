"""`quip init DIR`: a new git repository with this pipeline, for the user's own data and task.

The repository gets the code, dvc.yaml, the params and the make targets that run them, but no
result, test or page of this project. Its prompts and texts are this project's or those of a pack.
The user's sentences become data/raw/literals.jsonl, which DVC watches; each row holds the split
that `prepare` would assign.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from quip.cli import skill_packs, try_run
from quip.core.jsonl import read_rows, write_rows
from quip.core.params import load
from quip.core.records import LiteralText, Split
from quip.data import splits
from quip.data.sources import read_source
from quip.runtime.errors import DataError, QuipError

DVC = (sys.executable, "-m", "dvc")
NEEDED = {
    *("dvc.yaml", "rounds.yaml", "params.yaml", "params.try.yaml", ".gitignore", ".dvcignore"),
    *("Makefile", "requirements.txt", "pyproject.toml", "LICENSE", "data/LICENSE"),
    "data/README.md",
}
STARTER = Path(__file__).with_name("new_project_readme.md")
LITERALS = Path("data/raw/literals.jsonl")
LIVE_TEACHER = {
    "teacher": {"endpoint": "embedded", "n": 2, "train_inputs": 80},
    "imitation": {"per_input": 2},
}
"""Params of a project with sentences of its own: the shipped recording does not know them."""


class StartError(QuipError):
    """The new repository cannot be created."""


class Sentence(LiteralText):
    """A row of literals.jsonl: a literal with its split."""

    split: Split


def create_project(
    project: Path,
    folder: Path,
    pack: Path | None = None,
    data: Path | None = None,
    column: str | None = None,
) -> Counter[str]:
    """Create the repository `folder`; returns the number of sentences of each split.

    `data` and `column` are a table of sentences, as `prepare.source` and `prepare.column` take it.
    Raises DataError, before anything is written, when `folder` is not empty or `data` cannot be
    read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty. Name a new or an empty folder.")
    rows = read_sentences(data, column) if data else None
    try_run.copy_files(project, folder, filter(is_needed, try_run.project_files(project)))
    if pack:
        skill_packs.install_pack(pack, folder)
    if rows is not None:
        write_rows(folder / LITERALS, rows)
        skill_packs.overlay_values(folder / "params.yaml", LIVE_TEACHER)
    skill = f"the pack {pack.name}" if pack else "the project that this one was created from"
    readme = STARTER.read_text(encoding="utf-8").replace("{skill}", skill)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    make_repository(folder)
    return Counter(row.split for row in read_rows(folder / LITERALS, Sentence))


def is_needed(name: str) -> bool:
    """Whether a new project needs this file to run; `.gitignore` files keep outputs out of git."""
    ignores = name.startswith(("data/", "models/")) and name.endswith("/.gitignore")
    return name in NEEDED or name.startswith(("src/", "data/raw/", "data/safety/")) or ignores


def read_sentences(data: Path, column: str | None) -> list[Sentence]:
    """The sentences of `data`, each with the split that `prepare` would assign."""
    settings = load("prepare", splits.Params)
    found = read_source("source", str(data.resolve()), column, LITERALS)
    return [
        Sentence(id=row.id, text=row.text, emotion=row.emotion, split=row.split)
        for row in (splits.assign_split(row, settings) for row in found)
        if row.text
    ]


def make_repository(folder: Path) -> None:
    """Run `git init` and `dvc init` and add all files; the user makes the first commit."""
    run_command(folder, "git", "init", "--quiet")
    run_command(folder, *DVC, "init", "--quiet")
    for name, value in (("core.analytics", "false"), ("core.autostage", "true")):
        run_command(folder, *DVC, "config", name, value)
    run_command(folder, "git", "add", "--all")


def run_command(folder: Path, *command: str) -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    if done.returncode:
        output = (done.stderr or done.stdout).strip()[-300:]
        raise StartError(f"`{' '.join(command)}` failed in {folder}: {output}")
