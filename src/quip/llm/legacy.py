"""The call store of earlier versions, a SQLite file: its replies are paid for and move over."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

from filelock import FileLock

from quip.llm.reply_store import CallStore, Record


def adopt(old: Path, store: CallStore) -> None:
    """Copy every undamaged reply that `store` lacks, once; the old file stays, as `.adopted`."""
    if not old.is_file():
        return
    with FileLock(old.with_suffix(".lock")):
        if old.is_file():
            count = copy(old, store)
            old.rename(old.with_suffix(".adopted"))
            print(f"call store: {count:,} replies taken over from {old.name}")


def copy(old: Path, store: CallStore) -> int:
    count = 0
    connection = sqlite3.connect(old)
    try:
        for key, model, reply, check, at in connection.execute(
            "SELECT key, model, reply, check_sum, at FROM calls"
        ):
            if hashlib.sha256(reply.encode()).hexdigest() == check and store.get(key) is None:
                store.write(Record("call", key, model, "earlier version", 0.0, at, reply))
                count += 1
    except sqlite3.DatabaseError as error:
        print(f"call store: {old.name} cannot be read further ({error}); the rest is asked again")
    finally:
        connection.close()
    return count
