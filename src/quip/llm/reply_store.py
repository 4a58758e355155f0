"""Call store: keeps every paid reply, so that no reply is paid for twice.

The store is one journal under the main checkout, outside DVC's outputs. It survives crashes, serves
concurrent experiments, and leaves the stages in DVC's run-cache. A record is a line of fields
separated by tabs, with the checksum of the rest in front. A line break before and after each record
limits the harm of a cut, a kill or a flipped byte to one record. A damaged record is never
returned; its request is asked again.

Locks on single bytes of a second file show which process asks for which key, and which processes
(seats) ask an endpoint. The kernel releases them when their owner dies.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quip.core.jsonl import atomic
from quip.runtime import paths
from quip.runtime.errors import DataError

HEADER = "quip-calls 1"
SYNC_SECONDS = 1.0
"""Records younger than this may be lost by a power failure (not by a killed process)."""
SEATS = 64
"""Processes that can share one endpoint fairly; more of them take the last one's share."""


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).hexdigest().encode()


@dataclass(frozen=True)
class Record:
    """One record of the journal.

    `kind`: `call` (a reply), `waste` (a rejected reply that cost money), `batch` (a batch at a
    provider; collected when the payload is empty), `spent` (the cost of pruned records). `by` is
    the stage that asked, `money` what was paid, `at` seconds since 1970.
    """

    kind: str
    key: str
    model: str
    by: str
    money: float
    at: float
    payload: str

    @classmethod
    def now(cls, kind: str, key: str, model: str, by: str, money: float, payload: str) -> Record:
        return cls(kind, key, model, by, money, time.time(), " ".join(payload.splitlines()))

    def line(self) -> bytes:
        model, by = (" ".join(text.split()) for text in (self.model, self.by))
        numbers = (f"{self.money:.9g}", f"{self.at:.2f}")
        text = "\t".join((self.kind, self.key, model, by, *numbers, self.payload))
        data = text.encode("utf-8")
        return b"\n" + digest(data) + b"\t" + data + b"\n"


def parse(line: bytes) -> Record | None:
    """The record of one line; None when it is damaged."""
    check, _, data = line.rstrip(b"\n").partition(b"\t")
    if digest(data) != check:
        return None
    kind, key, model, by, money, at, payload = data.decode("utf-8").split("\t", 6)
    return Record(kind, key, model, by, float(money), float(at), payload)


class CallStore:
    """Replies by key, and the money spent. Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.index: dict[str, tuple[int, int]] = {}
        self.batches: dict[str, Record] = {}
        self.money, self.damaged, self.seen, self.synced = 0.0, 0, 0, 0.0
        self.locks = os.open(path.with_suffix(".locks"), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self.locks, fcntl.LOCK_SH)  # `rewrite` must have the store for itself
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self.begin()
        self.refresh()

    def begin(self) -> None:
        with self.writing() as size:
            if size == 0:
                self.append(f"{HEADER}\n".encode(), size)
        if os.pread(self.file, len(HEADER), 0) != HEADER.encode():
            self.close()
            raise DataError(
                f"{self.path}: not a call store of this version. Move the file aside to start a "
                "new one; finished stages keep their outputs, and `quip calls import` reads "
                "their replies back."
            )

    def refresh(self) -> None:
        """Read the records that this and other processes have appended since the last call."""
        size = os.fstat(self.file).st_size
        if size <= self.seen:
            return
        with os.fdopen(os.dup(self.file), "rb") as handle:
            handle.seek(self.seen)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # unfinished or cut off: the next record starts on a new line
                start, self.seen = self.seen, self.seen + len(line)
                if start and line != b"\n":
                    self.take(parse(line), start, len(line))

    def take(self, record: Record | None, start: int, length: int) -> None:
        if record is None:
            self.damaged += 1
            return
        self.money += record.money
        if record.kind == "call":
            self.index[record.key] = (start, length)
        elif record.kind == "batch" and record.payload:
            self.batches[record.key] = record
        elif record.kind == "batch":
            self.batches.pop(record.key, None)

    def get(self, key: str) -> str | None:
        """The stored reply, or None when there is none or it is damaged."""
        record = self.record(key)
        return None if record is None else record.payload

    def record(self, key: str) -> Record | None:
        if key not in self.index:
            self.refresh()
        if key not in self.index:
            return None
        start, length = self.index[key]
        found = parse(os.pread(self.file, length, start))
        return found if found is not None and found.key == key else None

    def records(self) -> Iterator[Record]:
        """Every undamaged record but replaced replies, oldest first."""
        self.refresh()
        with self.path.open("rb") as handle:
            start = len(handle.readline())
            for line in handle:
                record = parse(line) if line != b"\n" else None
                if record and (record.kind != "call" or self.at(record.key) == start):
                    yield record
                start += len(line)

    def at(self, key: str) -> int:
        return self.index.get(key, (-1, 0))[0]

    def put(self, key: str, model: str, reply: str, by: str = "", money: float = 0.0) -> None:
        """Store one reply. Raises OSError on a full disk, and leaves the store as it was."""
        self.write(Record.now("call", key, model, by, money, reply))

    def write(self, record: Record) -> None:
        with self.writing() as size:
            self.append(record.line(), size)
        if time.monotonic() - self.synced > SYNC_SECONDS:
            os.fsync(self.file)
            self.synced = time.monotonic()
        self.refresh()

    def append(self, data: bytes, size: int) -> None:
        """Append `data` whole or not at all; `size` is the file's size before."""
        try:
            written = os.write(self.file, data)
        except OSError:
            os.ftruncate(self.file, size)
            raise
        if written < len(data):
            os.ftruncate(self.file, size)
            raise OSError(errno.ENOSPC, "the call store could not grow", str(self.path))

    def writing(self) -> Writing:
        return Writing(self.file)

    def lock_key(self, key: str) -> bool:
        """Lock `key`, so that this process may ask for it; False when another process holds it."""
        return self.lock(byte_of(key))

    def unlock_key(self, key: str) -> None:
        fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, byte_of(key))

    def lock(self, byte: int) -> bool:
        try:
            fcntl.lockf(self.locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def join(self, endpoint: str) -> int:
        """Take a seat at `endpoint`, counted by `active_processes`; returns the seat's number."""
        first = byte_of(hashlib.sha256(endpoint.encode()).hexdigest()) // SEATS * SEATS
        return next((first + n for n in range(SEATS) if self.lock(first + n)), first + SEATS - 1)

    def active_processes(self, seat: int) -> int:
        """Number of processes that ask the endpoint of `seat`, this one included."""
        first = seat // SEATS * SEATS
        taken = 1
        for other in range(first, first + SEATS):
            if other == seat:
                continue
            if self.lock(other):
                fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, other)
            else:
                taken += 1
        return taken

    def leave(self, seat: int) -> None:
        fcntl.lockf(self.locks, fcntl.LOCK_UN, 1, seat)

    def rewrite(self, choose: Callable[[list[Record]], Iterable[Record]]) -> None:
        """Replace all records by `choose(records)`, and close the store. Raises DataError while
        another process uses it."""
        try:
            fcntl.flock(self.locks, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self.locks, fcntl.LOCK_SH)  # the failed attempt has released it
            raise DataError(f"{self.path} is in use by another process; wait for it.") from None
        kept = choose(list(self.records()))
        with atomic(self.path) as handle:
            handle.write(f"{HEADER}\n")
            for record in kept:
                handle.write(record.line().decode("utf-8"))
        self.close()

    def __len__(self) -> int:
        self.refresh()
        return len(self.index)

    def close(self) -> None:
        """Close the files; closing twice is allowed."""
        for file in {self.file, self.locks} - {-1}:
            os.close(file)
        self.file = self.locks = -1


class Writing:
    """Lock for appending, used as `with Writing(file) as size`; `size` is the file's size."""

    def __init__(self, file: int) -> None:
        self.file = file

    def __enter__(self) -> int:
        fcntl.flock(self.file, fcntl.LOCK_EX)
        return os.fstat(self.file).st_size

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self.file, fcntl.LOCK_UN)


def open_store() -> CallStore:
    """The project's call store."""
    return CallStore(paths.state("calls.journal"))


def byte_of(key: str) -> int:
    """The byte whose lock represents `key`: the key's first 56 bits."""
    return int(key[:14], 16)
