"""Durable queue of MLflow entries, one file (journal) per run, in `.quip/outbox`.

A run writes each entry to its journal before it sends it, and removes the journal when MLflow has
received all of it. Neither a tracking server that is down nor kill -9 loses anything: the next
process that opens the store sends the journals that are left (`quip.tracking.runs`). A journal's
owner holds a file lock, which the kernel releases when the owner dies; a journal without a lock is
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
"""One entry: its `kind` (`run`, `inputs`, `points`, `end`) and the fields of that kind."""


class Journal:
    """The entries of one run, in order of time. `key` identifies the run, whatever id MLflow gives
    it. Use a journal only while it is open: its lock keeps other processes away."""

    def __init__(self, path: Path, new: bool = False) -> None:
        """Open or create (`new`) a journal. Raises BlockingIOError when another process holds
        it."""
        self.path, self.key = path, path.stem.rpartition("-")[2]
        flags = os.O_RDWR | os.O_APPEND | (os.O_CREAT if new else 0)
        self.file = os.open(path, flags, 0o644)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.file)
            raise

    def write(self, kind: str, **what: Any) -> None:
        """Append one entry, whole or not at all. Raises OSError when the disk is full."""
        data, size = f"{json.dumps({'kind': kind, **what})}\n".encode(), os.fstat(self.file).st_size
        if os.write(self.file, data) < len(data):
            os.ftruncate(self.file, size)
            raise OSError(errno.ENOSPC, "no room for another entry", str(self.path))

    def read(self, start: int) -> tuple[list[Entry], int]:
        """The whole entries from byte `start` on, and the byte at which they end."""
        data = os.pread(self.file, os.fstat(self.file).st_size - start, start)
        lines = data[: data.rfind(b"\n") + 1]  # a kill may have cut the last one
        return [json.loads(line) for line in lines.splitlines()], start + len(lines)

    def modified_ms(self) -> int:
        """Time of the last entry, in milliseconds since 1970."""
        return round(os.fstat(self.file).st_mtime * 1000)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def set_aside(self) -> Path:
        """Rename the journal to `*.refused`, so that it is not sent again; returns the new path."""
        aside = self.path.with_suffix(".refused")
        self.path.rename(aside)
        self.close()
        return aside

    def close(self) -> None:
        """Release the lock; the file stays. Closing twice is allowed."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1


def create_journal() -> Journal:
    """A new journal. Journal names sort by time of creation."""
    return Journal(folder() / f"{time.time_ns()}-{uuid.uuid4().hex}.jsonl", new=True)


def ended_journals() -> Iterator[Journal]:
    """The journals whose owner has ended, oldest first; each is open while it is yielded."""
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
