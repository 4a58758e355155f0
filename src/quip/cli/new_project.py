"""`quip init DIR`: a fresh git repository with this pipeline, for data and a task of one's own.

It gets the code, dvc.yaml, the params and the make targets that run them, but no result, no test
and no page of this project; its prompts and texts are this project's or those of a pack. Sentences
of one's own become data/raw/literals.jsonl, each with the split that `prepare` would give it, so
that DVC watches them and a look shows which sentence is in which part.
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


class StartError(QuipError):
    """The new repository could not be made."""


class Sentence(LiteralText):
    """A row of literals.jsonl: a literal with its split."""

    split: Split


def start(
    project: Path,
    folder: Path,
    pack: Path | None = None,
    data: Path | None = None,
    column: str | None = None,
) -> Counter[str]:
    """Make the repository `folder`; returns how many sentences are in which part.

    `data` and `column` are a table of sentences as `prepare.source` and `prepare.column` take it.
    Raises DataError, before anything is made, when `folder` holds something or `data` cannot be
    read.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already: name a folder that is empty or not there yet.")
    rows = sentences(data, column) if data else None
    try_run.copy(project, folder, filter(needed, try_run.listed(project)))
    if pack:
        skill_packs.put(pack, folder)
    if rows is not None:
        write_rows(folder / LITERALS, rows)
    skill = f"the pack {pack.name}" if pack else "the project that this one was laid out from"
    readme = STARTER.read_text(encoding="utf-8").replace("{skill}", skill)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    make_repository(folder)
    return Counter(row.split for row in read_rows(folder / LITERALS, Sentence))


def needed(name: str) -> bool:
    """Whether a project needs this file of ours to run; `.gitignore`s keep outputs out of git."""
    ignores = name.startswith(("data/", "models/")) and name.endswith("/.gitignore")
    return name in NEEDED or name.startswith(("src/", "data/raw/", "data/safety/")) or ignores


def sentences(data: Path, column: str | None) -> list[Sentence]:
    """The sentences of `data`, each in the part that `prepare` would put it into."""
    settings = load("prepare", splits.Params)
    found = read_source("source", str(data.resolve()), column, LITERALS)
    return [
        Sentence(id=row.id, text=row.text, emotion=row.emotion, split=row.split)
        for row in (splits.assign_split(row, settings) for row in found)
        if row.text
    ]


def make_repository(folder: Path) -> None:
    """`git init`, `dvc init` and everything added; the first commit is the owner's."""
    run(folder, "git", "init", "--quiet")
    run(folder, *DVC, "init", "--quiet")
    for name, value in (("core.analytics", "false"), ("core.autostage", "true")):
        run(folder, *DVC, "config", name, value)
    run(folder, "git", "add", "--all")


def run(folder: Path, *command: str) -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise StartError(f"`{' '.join(command)}` failed in {folder}: {said}")
