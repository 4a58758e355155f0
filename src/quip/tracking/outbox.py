"""What is to be told to MLflow, kept until it has arrived: one journal a run, in `.quip/outbox`.

A run writes each step of its life into its journal before it is sent, and the journal goes when all
of it has arrived. So neither a tracking server that is down nor kill -9 loses anything: what is
left in the folder is sent by the next one who opens the store (`quip.tracking.runs`). A journal's
owner holds a lock on it, which the kernel drops when the owner dies; one that nobody holds is
finished.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quip.runtime import paths

Entry = dict[str, Any]
"""One step: its `kind` (`run`, `inputs`, `points`, `end`) and what belongs to it."""


class Journal:
    """The entries of one run, in the order in which they happened. `key` names the run for good,
    whatever MLflow calls it. Use it only while it is open: the lock is what tells others so."""

    def __init__(self, path: Path, new: bool = False) -> None:
        """Open a journal, or begin one. Raises BlockingIOError when another process holds it."""
        self.path, self.key = path, path.stem.rpartition("-")[2]
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if new else 0)
        self.file = os.open(path, flags, 0o644)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.file)
            raise

    def write(self, kind: str, **what: Any) -> None:
        """Append one entry, whole or not at all. A full disk raises OSError."""
        data, size = f"{json.dumps({'kind': kind, **what})}\n".encode(), os.fstat(self.file).st_size
        if os.write(self.file, data) < len(data):
            os.ftruncate(self.file, size)
            raise OSError(errno.ENOSPC, "the journal could not grow", str(self.path))

    def read(self, start: int) -> tuple[list[Entry], int]:
        """The whole entries from byte `start` on, and where they end."""
        data = os.pread(self.file, os.fstat(self.file).st_size - start, start)
        lines = data[: data.rfind(b"\n") + 1]  # a kill may have cut the last one
        return [json.loads(line) for line in lines.splitlines()], start + len(lines)

    def changed(self) -> int:
        """When the last entry was written, in milliseconds since 1970."""
        return round(os.fstat(self.file).st_mtime * 1000)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def refuse(self) -> Path:
        """Put it aside under another name, where nobody tries it again."""
        aside = self.path.with_suffix(".refused")
        self.path.rename(aside)
        self.close()
        return aside

    def close(self) -> None:
        """Give the lock back; what was written stays. A second time is no harm."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1


def begin() -> Journal:
    """A new journal; their names sort by the time at which they were begun."""
    return Journal(folder() / f"{time.time_ns()}-{uuid.uuid4().hex}.jsonl", new=True)


def left() -> Iterator[Journal]:
    """The journals whose owner has ended, oldest first, each open while it is looked at."""
    for path in sorted(folder().glob("*.jsonl")):
        try:
            journal = Journal(path)
        except (BlockingIOError, FileNotFoundError):
            continue
        try:
            if path.exists():  # else another process has just sent it
                yield journal
        finally:
            journal.close()


def folder() -> Path:
    found = paths.state("outbox")
    found.mkdir(exist_ok=True)
    return found
