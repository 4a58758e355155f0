"""The call store: a reply once paid for is never paid for again.

One SQLite file under the main checkout, outside DVC's outputs, so that it survives crashes,
serves concurrent experiments, and leaves the stages in DVC's run-cache. A reply is found by a
digest of everything that determines it. Each row carries its own checksum: a damaged reply is
asked again, never returned.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
import time
from pathlib import Path

from quip.errors import DataError

SCHEMA = """
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, reply TEXT NOT NULL, check_sum TEXT NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


class CallStore:
    """Replies by key. Safe for several processes at once (SQLite's write-ahead log)."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.connection = sqlite3.connect(path, timeout=60, isolation_level=None)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.execute(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"{path}: the call store cannot be opened ({error}). Move the file aside to start "
                "a new one; finished stages keep their outputs."
            ) from None

    def get(self, key: str) -> str | None:
        """The stored reply, or None when there is none or it is damaged."""
        row = self.connection.execute(
            "SELECT reply, check_sum FROM calls WHERE key = ?", (key,)
        ).fetchone()
        if row is None or digest(row[0]) != row[1]:
            return None
        return str(row[0])

    def put(self, key: str, model: str, reply: str) -> None:
        """Store one reply. A full disk raises OSError(ENOSPC)."""
        values = (key, model, reply, digest(reply), time.time())
        try:
            self.connection.execute("INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?)", values)
        except sqlite3.OperationalError as error:
            if "full" not in str(error):
                raise
            raise OSError(errno.ENOSPC, "the call store could not grow") from None

    def __len__(self) -> int:
        return int(self.connection.execute("SELECT count(*) FROM calls").fetchone()[0])

    def close(self) -> None:
        self.connection.close()
