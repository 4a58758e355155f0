"""The call store: what was put in is there, whole, for every process and after a kill or a cut."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from quip.llm.reply_store import CallStore, Record
from quip.runtime.errors import DataError

WRITER = """
import sys
from hashlib import sha256
from pathlib import Path
from quip.llm.reply_store import CallStore
store = CallStore(Path("calls.journal"))
for number in range(int(sys.argv[2])):
    name = f"{sys.argv[1]}-{number}"
    store.put(sha256(name.encode()).hexdigest(), "m", f"reply {number}")
print("stored", flush=True)
sys.stdin.read()
"""

CLAIMER = """
from pathlib import Path
from quip.llm.reply_store import CallStore
store = CallStore(Path("calls.journal"))
print(store.lock_key("ab" * 32), store.active_processes(store.join("here")), flush=True)
input()
"""


def key(name: str) -> str:
    return sha256(name.encode()).hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened() -> CallStore:
    return CallStore(Path("calls.journal"))


def write(name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, name, str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_reply_is_found_by_its_key_and_by_no_other() -> None:
    store = opened()
    store.put(key("k"), "m", "ein Reim: üß 🎭")
    assert store.get(key("k")) == "ein Reim: üß 🎭"
    assert store.get(key("j")) is None


def test_a_reply_may_be_replaced() -> None:
    store = opened()
    store.put(key("k"), "m", "once")
    store.put(key("k"), "m", "again")
    assert (store.get(key("k")), len(store), len(list(store.records()))) == ("again", 1, 1)


def test_names_and_replies_may_hold_anything() -> None:
    store = opened()
    store.put(key("k"), "a\tmodel\nof mine", '{"text": "tab \\t, break \\n"}', "judge\t1")
    assert opened().get(key("k")) == '{"text": "tab \\t, break \\n"}'
    assert [record.model for record in store.records()] == ["a model of mine"]


def test_replies_survive_kill_9() -> None:
    writer = write("a", 50)
    assert writer.stdout
    assert writer.stdout.readline() == "stored\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    assert len(opened()) == 50
    assert opened().get(key("a-49")) == "reply 49"


def test_several_processes_share_one_store() -> None:
    reader = opened()
    writers = [write(name, 40) for name in "abc"]
    for writer in writers:
        writer.communicate()
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert len(opened()) == len(reader) == 120
    assert reader.damaged == 0


def filled(count: int = 8) -> tuple[bytes, int]:
    """A store of `count` replies: its bytes, and where the last three records begin."""
    store = opened()
    starts = []
    for number in range(count):
        starts.append(os.fstat(store.file).st_size)
        store.put(key(str(number)), "m", f'{{"text":"reply {number}"}}')
    store.close()
    return Path("calls.journal").read_bytes(), starts[-3]


def check(content: bytes, most_lost: int) -> None:
    """Open a store of `content`: at most so many replies are missing, none is wrong, and after
    they were asked again nothing is missing."""
    Path("calls.journal").write_bytes(content)
    store = opened()
    missing = []
    for number in range(8):
        reply = store.get(key(str(number)))
        assert reply in (None, f'{{"text":"reply {number}"}}')
        if reply is None:
            missing.append(number)
            store.put(key(str(number)), "m", f'{{"text":"reply {number}"}}')
    assert len(missing) <= most_lost
    store.close()
    again = opened()
    assert all(again.get(key(str(number))) for number in range(8))
    again.close()


def test_a_cut_at_any_byte_loses_what_was_cut_off_and_no_more() -> None:
    content, first = filled()
    length = (len(content) - first) // 3
    for end in range(first, len(content)):
        lost = -(-(len(content) - end) // length)
        check(content[:end], most_lost=lost)


def test_a_flipped_byte_loses_the_record_it_is_in() -> None:
    content, first = filled()
    luck = random.Random(3)
    for place in range(first, len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << luck.randrange(8)
        check(bytes(flipped), most_lost=1)


def test_a_line_break_where_none_was_is_one_record_s_damage() -> None:
    content, first = filled()
    for place in range(first, len(content), 7):
        check(content[:place] + b"\n" + content[place + 1 :], most_lost=1)


def test_a_reply_damaged_while_the_store_is_open_is_not_returned() -> None:
    store = opened()
    store.put(key("k"), "m", "right")
    path = Path("calls.journal")
    path.write_bytes(path.read_bytes().replace(b"right", b"wrong"))
    assert store.get(key("k")) is None


def test_a_file_that_is_no_store_is_refused_with_the_remedy() -> None:
    Path("calls.journal").write_bytes(b"something else\n" * 100)
    with pytest.raises(DataError, match=r"not a call store of this version. Move the file aside"):
        opened()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(store: CallStore) -> None:
    for number in range(1000):
        store.put(key(str(number)), "m", "x" * 700)


def test_a_disk_that_fills_up_keeps_what_was_stored(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 20_000)
    store = CallStore(small_disk / "calls.journal")
    full = r"could not grow|No space left"
    with pytest.raises(OSError, match=full):
        fill(store)
    stored = len(store)
    assert stored > 10
    with pytest.raises(OSError, match=full):
        store.put(key("another"), "m", "x" * 5000)
    store.close()
    again = CallStore(small_disk / "calls.journal")
    assert (len(again), again.damaged) == (stored, 0)
    ballast.unlink()
    again.put(key("after"), "m", "there is room")
    assert len(again) == stored + 1
    again.close()


def test_a_lock_and_a_seat_end_with_their_owner() -> None:
    store = opened()
    seat = store.join("here")
    assert store.active_processes(seat) == 1
    command = [sys.executable, "-c", CLAIMER]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    assert other.stdout.readline() == "True 2\n"
    assert (store.lock_key("ab" * 32), store.lock_key("cd" * 32)) == (False, True)
    assert store.active_processes(seat) == 2
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert store.lock_key("ab" * 32)
    assert store.active_processes(seat) == 1


def test_a_store_is_rewritten_only_by_its_only_user() -> None:
    store, other = opened(), opened()
    store.put(key("k"), "m", "kept")
    with pytest.raises(DataError, match="in use by another process"):
        store.rewrite(lambda records: [])
    other.close()
    new = Record.now("call", key("j"), "m", "test", 0.25, "new")
    store.rewrite(lambda records: [new])
    assert opened().get(key("k")) is None
    assert (opened().get(key("j")), opened().money) == ("new", 0.25)
