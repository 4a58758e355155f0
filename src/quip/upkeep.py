"""Disk, stores and locks of this checkout, for `quip doctor`. Looks only, changes nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from quip import reaching, stage, tracking, weights
from quip.errors import QuipError
from quip.pins import MODELS
from quip.remedy import Finding
from quip.store import CallStore

FREE_GIB = 6


def disk() -> Iterator[Finding]:
    """Room for a run here, and for the weights that are still to be fetched, where they go."""
    remedy = "`dvc gc --workspace` drops what no stage needs"
    yield room(stage.root(), FREE_GIB, f"a run wants {FREE_GIB}; {remedy}")
    lacking = sum(size for _, size in weights.missing(MODELS)) / 2**30
    if lacking:
        wanted = f"the weights want {2 * lacking:,.1f}; QUIP_CACHE names another folder"
        yield room(weights.cache(), 2 * lacking, wanted)  # the packages are kept till all is there


def room(folder: Path, gib: float, remedy: str) -> Finding:
    """`folder` need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    what = f"{free:,.0f} GiB free on the disk of {folder}"
    return Finding("ok", what) if free >= gib else Finding("mend", what, remedy)


def calls() -> Iterator[Finding]:
    """The store of paid replies: readable, and none of them damaged."""
    journal = stage.root() / ".quip" / "calls.journal"
    if not journal.is_file():
        yield Finding("note", "call store: no reply is kept yet", "made by the first call")
        return
    try:
        with closing(CallStore(journal)) as store:
            kept, damaged = len(store), store.damaged
    except (QuipError, OSError) as error:
        yield Finding("mend", f"call store: {error}", f"`mv {journal} {journal}.bad`")
        return
    if damaged:
        what = f"call store: {damaged} of its records are damaged and will be asked for again"
        yield Finding("note", what, "`quip calls prune` drops what no stage needs")
    else:
        yield Finding("ok", f"call store: {kept:,} replies")


def database() -> Iterator[Finding]:
    """The tracking store: whole, and its artifacts still where the addresses say."""
    file = tracking.database()
    if file is None:
        yield reaching.tracking_server(tracking.store_uri())
    elif not file.exists():
        yield Finding("note", "mlflow.db is not there yet", "made by the first training stage")
    else:
        yield examine_database(file)


def examine_database(file: Path) -> Finding:
    aside = f"`mv {file.name} {file.name}.bad`, then `dvc repro -f -s register`"
    try:
        with sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True) as rows:
            (state,) = rows.execute("PRAGMA quick_check(1)").fetchone()
            rows.execute("SELECT version_num FROM alembic_version").fetchone()
            query = "SELECT artifact_location FROM experiments WHERE name = ?"
            found = rows.execute(query, (tracking.EXPERIMENT,)).fetchone()
    except sqlite3.Error as error:
        return Finding("mend", f"{file.name} cannot be read ({error})", aside)
    if state != "ok":
        return Finding("mend", f"{file.name} is damaged ({state})", aside)
    if found and moved(found[0]):
        what = f"{file.name} points to {found[0]}: this checkout was moved"
        return Finding("note", what, "`dvc repro -f -s register` registers the models anew")
    return Finding("ok", file.name)


def moved(location: str) -> bool:
    parts = urlsplit(location)
    here = tracking.artifacts() == location
    return parts.scheme == "file" and not here and not Path(unquote(parts.path)).exists()


def dvc_locks() -> Iterator[Finding]:
    """DVC frees its locks when it dies, but for a read-write table that a kill cut in two and
    for hard-linked locks (`core.hardlink_lock`), which outlive their owner."""
    lock, table = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")
    if lock.is_file() and held(lock):
        yield Finding("note", "another dvc is at work here", "wait for it to end")
    elif lock.is_file() and (owner := dead_owner(lock)):
        yield Finding("mend", f"{lock} is held by dead process {owner}", f"`rm {lock}`")
    if table.is_file() and not is_json(table):
        yield Finding("mend", f"{table} is cut off", f"with no dvc running, `rm {table}`")


def held(file: Path) -> bool:
    """Whether some process holds the lock of `file`."""
    with file.open("r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def dead_owner(lock: Path) -> int | None:
    """The process named in a hard-linked lock file (`path:host:pid:random`), if it is gone."""
    found = re.search(r":([^:]+):(\d+):\d+\s*$", lock.read_text("utf-8", errors="replace"))
    here = found and found.group(1) == os.uname().nodename
    return (
        int(found.group(2)) if found and here and not tracking.alive(int(found.group(2))) else None
    )


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text("utf-8") or "{}")
    except ValueError:
        return False
    return True


def stages_at_work() -> Iterator[Finding]:
    for file in sorted(Path(".quip/locks").glob("*.lock")):
        if held(file):
            what = f"stage {file.stem} is still running in another process"
            yield Finding("note", what, "`dvc repro` waits for it")
