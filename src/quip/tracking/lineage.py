"""Model lineage: hashes of files and models, and the recipe of a model in dvc.lock.

A model's recipe is the part of dvc.lock that led to it: the entries of its training stage and of
every stage before it, with the hashes of code, prompts and data and the values of params. The
commit whose dvc.lock holds this recipe made the model. That is so for `dvc exp run` in the
workspace, a temporary folder or the queue, and for `dvc repro` with a commit by hand.

This module does not import MLflow, so that computing a digest stays cheap.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quip.runtime.errors import DataError

LOCK_FILE = Path("dvc.lock")
BLOCK = 1 << 20
SCRATCH_REFS = ("refs/stash", "refs/exps/stash*", "refs/exps/celery/*", "refs/exps/exec/*")
"""Refs of DVC and git for unfinished work; a dvc.lock in them is no evidence."""

Recipe = dict[str, dict[str, Any]]
"""Stage name -> its entry in dvc.lock (cmd, deps, params, outs)."""


def model_digest(folder: Path) -> str:
    """sha256 over the names and bytes of a model folder's safetensors files, in name order.

    Raises DataError when the folder holds none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(f"{folder}: no *.safetensors file. Run `dvc repro` (or `dvc pull`).")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as handle:
            while block := handle.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def hash_file(path: Path, algorithm: str) -> str:
    """Hex digest of a file's bytes by a `hashlib` algorithm (`md5`, `sha256`)."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def data_hash(path: Path, lock: Path = LOCK_FILE) -> str:
    """DVC's md5 of a file or folder.

    Taken from dvc.lock where it names the path with the present size (a stage run by hand leaves
    an old entry), else computed as DVC does.
    """
    entry = lock_outputs(lock).get(path.as_posix())
    if entry and entry.get("size") == total_size(path):
        return str(entry["md5"])
    return folder_md5(path) if path.is_dir() else hash_file(path, "md5")


def lock_outputs(lock: Path = LOCK_FILE) -> dict[str, dict[str, Any]]:
    """Path -> entry (md5, size) of every output that dvc.lock names; empty without the file."""
    stages = lock_stages(lock)
    entries = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out for out in entries if "md5" in out}


# ---- the recipe of a model -----------------------------------------------------------------


def lock_stages(lock: Path = LOCK_FILE) -> Recipe:
    """Stage name -> entry of the file `lock`; empty when there is no such file."""
    return read_lock(lock.read_text(encoding="utf-8")) if lock.is_file() else {}


def read_lock(text: str) -> Recipe:
    """Stage name -> entry of a dvc.lock's text; empty when it is malformed, as in a broken
    commit."""
    try:
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return {}
    stages = found.get("stages") if isinstance(found, dict) else None
    return stages if isinstance(stages, dict) else {}


def recipe_of(stages: Recipe, path: str) -> Recipe:
    """The entries of the stage that makes `path` and of all stages before it; empty when no stage
    makes it."""
    makers = [
        name
        for name, entry in stages.items()
        if any(overlaps(path, o) for o in output_paths(entry))
    ]
    found: Recipe = {}
    while makers:
        name = makers.pop()
        if name not in found:
            found[name] = stages[name]
            needs = [dep["path"] for dep in stages[name].get("deps", [])]
            makers += [
                other
                for other, entry in stages.items()
                if any(overlaps(need, out) for need in needs for out in output_paths(entry))
            ]
    return {name: found[name] for name in stages if name in found}


def output_paths(entry: Mapping[str, Any]) -> list[str]:
    """The paths of a stage's outputs."""
    return [out["path"] for out in entry.get("outs", [])]


def overlaps(one: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def fingerprint(found: Recipe) -> str:
    """sha256 of a recipe, independent of the order of its stages and keys."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def lock_commits(folder: Path, *revisions: str) -> Iterator[tuple[str, Recipe]]:
    """(commit, stages of its dvc.lock) for each commit that changed dvc.lock, oldest first.

    Searches `revisions`, or every branch, tag and experiment; yields nothing outside a git
    checkout.
    """
    everything = [f"--exclude={ref}" for ref in SCRATCH_REFS] + ["--all"]
    chosen = list(revisions) or everything
    for commit in git(folder, "log", "--reverse", "--format=%H", *chosen, "--", str(LOCK_FILE)):
        text = "\n".join(git(folder, "show", f"{commit}:./{LOCK_FILE}"))
        if text:
            yield commit, read_lock(text)


def git(folder: Path, *words: str) -> list[str]:
    """The output lines of a git command; empty when it fails or git is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return done.stdout.splitlines()


def changed_files(folder: Path, commit: str, deps: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of `deps` (entries of dvc.lock with path and md5) whose content in `commit`
    differs."""
    return [str(dep["path"]) for dep in deps if committed_md5(folder, commit, dep) != dep["md5"]]


def committed_md5(folder: Path, commit: str, dep: Mapping[str, Any]) -> str | None:
    """DVC's md5 of a file or folder in `commit`; None when it is not there."""
    path = str(dep["path"])
    if not str(dep["md5"]).endswith(".dir"):
        content = file_at_commit(folder, commit, path)
        return None if content is None else md5(content)
    names = git(folder, "ls-tree", "-r", "--name-only", commit, "--", f"./{path}/")
    contents = {name: file_at_commit(folder, commit, name) for name in names}
    listing = [
        (str(Path(n).relative_to(path)), md5(c)) for n, c in contents.items() if c is not None
    ]
    return listing_md5(listing)


def file_at_commit(folder: Path, commit: str, path: str) -> bytes | None:
    """The bytes of a file in a commit; None when it is not there."""
    command = ["git", "-C", str(folder), "show", f"{commit}:./{path}"]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# ---- files and folders ---------------------------------------------------------------------


def total_size(path: Path) -> int:
    """Bytes of a file, or of all files under a folder."""
    return sum(file.stat().st_size for file in files_under(path))


def files_under(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def folder_md5(folder: Path) -> str:
    """DVC's md5 of a folder."""
    files = files_under(folder)
    return listing_md5([(f.relative_to(folder).as_posix(), hash_file(f, "md5")) for f in files])


def listing_md5(listing: Iterable[tuple[str, str]]) -> str:
    """md5 over (path, md5) of every file of a folder, written as DVC writes its `.dir` objects."""
    entries = [{"md5": file_md5, "relpath": path} for path, file_md5 in sorted(listing)]
    return md5(json.dumps(entries, sort_keys=True).encode()) + ".dir"


def git_commit() -> str | None:
    """The commit checked out here (in an experiment its baseline); None outside git."""
    return next(iter(git(Path(), "rev-parse", "HEAD")), None)
