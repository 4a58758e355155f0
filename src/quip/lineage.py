"""Fingerprints of files as DVC and this project count them: what a run was made from.

No tracker is imported here, so that whoever only needs a digest pays for nothing else.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from quip.errors import DataError

LOCK_FILE = Path("dvc.lock")
BLOCK = 1 << 20


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
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, algorithm).hexdigest()


def data_hash(path: Path, lock: Path = LOCK_FILE) -> str:
    """DVC's md5 of a file or folder: from dvc.lock where it names the path and the size still
    agrees (a stage run by hand leaves an old entry), else computed the same way."""
    entry = locked_outputs(lock).get(path.as_posix())
    if entry and entry.get("size") == size(path):
        return str(entry["md5"])
    return folder_md5(path) if path.is_dir() else hash_file(path, "md5")


def locked_outputs(lock: Path = LOCK_FILE) -> dict[str, dict[str, Any]]:
    """Path -> entry (md5, size) of every output that dvc.lock names; empty without the file."""
    if not lock.is_file():
        return {}
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    outs = [out for stage in stages.values() for out in stage.get("outs", [])]
    return {out["path"]: out for out in outs if "md5" in out}


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in files_under(path))


def files_under(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def folder_md5(folder: Path) -> str:
    """md5 over the listing of the folder, written as DVC writes its `.dir` objects."""
    listing = [
        {"md5": hash_file(file, "md5"), "relpath": file.relative_to(folder).as_posix()}
        for file in files_under(folder)
    ]
    listing.sort(key=lambda entry: entry["relpath"])
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def git_commit() -> str | None:
    """The commit checked out here; under an experiment that is its baseline. None outside git."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
