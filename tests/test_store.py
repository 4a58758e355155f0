"""The call store: what was put in is there, whole, for every process and after a kill."""

from __future__ import annotations

import errno
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from quip.errors import DataError
from quip.store import CallStore

WRITER = """
import sys
from pathlib import Path
from quip.store import CallStore
store = CallStore(Path("calls.sqlite"))
for number in range(int(sys.argv[2])):
    store.put(f"{sys.argv[1]}-{number}", "m", f"reply {number}")
print("stored", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened() -> CallStore:
    return CallStore(Path("calls.sqlite"))


def write(name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_reply_is_found_by_its_key_and_by_no_other() -> None:
    store = opened()
    store.put("k", "m", "ein Reim: üß 🎭")
    assert (store.get("k"), store.get("other")) == ("ein Reim: üß 🎭", None)
    store.put("k", "m", "again")
    assert (store.get("k"), len(store)) == ("again", 1)


def test_replies_survive_kill_9() -> None:
    writer = write("a", 50)
    assert writer.stdout
    assert writer.stdout.readline() == "stored\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(opened()) == 50
    assert opened().get("a-49") == "reply 49"


def test_several_processes_share_one_store() -> None:
    writers = [write(name, 40) for name in "abc"]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(opened()) == 120


def test_a_damaged_reply_is_not_returned() -> None:
    store = opened()
    store.put("k", "m", "right")
    store.connection.execute("UPDATE calls SET reply = 'wrong'")
    assert store.get("k") is None


def test_a_file_that_is_no_store_says_what_to_do() -> None:
    Path("calls.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(DataError, match=r"cannot be opened \(file is not a database\). Move the"):
        opened()


def test_a_full_disk_is_told_apart_from_a_broken_store() -> None:
    store = opened()
    store.connection.execute("PRAGMA max_page_count = 8")

    def fill() -> None:
        for number in range(100):
            store.put(str(number), "m", "x" * 4000)

    with pytest.raises(OSError, match="could not grow") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC


def test_another_sqlite_error_keeps_its_name() -> None:
    store = opened()
    store.connection.execute("DROP TABLE calls")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.put("k", "m", "reply")
