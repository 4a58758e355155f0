"""Calls of a stage as one of its outputs: `data/calls/STAGE.jsonl`.

A stage that asks a large model also writes the replies it used: key, model, reply and, for `quip
calls export`, what the call is about, in the order of first use, without times, prices and counts
of cached tokens. The file is determined by the requests and their replies, and DVC caches, pushes
and pulls it like any other output.

A call store that is empty when a stage opens it, as in a fresh clone, imports the files under
data/calls. DVC removes a stage's outputs before it runs the stage, so the files that dvc.lock names
are imported from DVC's cache, too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, Field

from quip.core.jsonl import atomic, parse_row
from quip.llm.reply_store import CallStore, Record, open_store
from quip.llm.requests.chat import About, ModelReply
from quip.runtime import paths
from quip.tracking.lineage import lock_outputs

FOLDER = Path("data/calls")
IMPORTED = "imported"
"""The stage of an imported reply in the call store."""


class Call(BaseModel):
    """One line of a file of calls. `key` is that of `quip.llm.requests.chat.Request`."""

    key: str = Field(pattern="^[0-9a-f]{64}$")
    model: str
    reply: ModelReply
    about: About | None = None


Used = dict[str, tuple[str, About | None]]
"""key -> (model, what the call is about), in the order of first use."""
USED: ContextVar[Used | None] = ContextVar("used", default=None)
"""The calls that the running stage has used."""


@contextmanager
def record_calls(file: str | Path) -> Iterator[None]:
    """Write the calls used inside this block to `file` at its end; the file is empty when there
    are none. An exception leaves no file."""
    token = USED.set({})
    try:
        yield
        write_calls(file, USED.get() or {})
    finally:
        USED.reset(token)


def note_used(keys: Iterable[str], model: str, about: Mapping[str, About]) -> None:
    """Record calls as used, inside a block of `record_calls`; elsewhere do nothing."""
    used = USED.get()
    if used is not None:
        for key in keys:
            used.setdefault(key, (model, about.get(key)))


def write_calls(file: str | Path, used: Used) -> None:
    with atomic(file) as handle:
        handle.writelines(f"{line}\n" for line in (as_lines(used) if used else ()))


def as_lines(used: Used) -> Iterator[str]:
    """One line per call with a reply, in order; calls that failed for good have none."""
    with closing(open_store()) as store:
        for key, (model, about) in used.items():
            if (payload := store.get(key)) is not None:
                yield as_line(key, model, payload, about)


def as_line(key: str, model: str, payload: str, about: About | None = None) -> str:
    """One line of a file of calls; `payload` is the reply as the store keeps it."""
    reply = ModelReply.model_validate_json(payload).model_copy(update={"cached_tokens": 0})
    call = Call(key=key, model=model, reply=reply, about=about)
    return call.model_dump_json(exclude_defaults=True)


# ---- import ----------------------------------------------------------------------------------


def fill_empty(store: CallStore) -> None:
    """Import the calls of all stages when the store holds no reply."""
    if len(store):
        return
    with FileLock(paths.state("import.lock")):
        if not len(store):
            for stage, count in import_calls(store).items():
                print(f"call store: {count:,} replies of {stage} imported")


def import_calls(store: CallStore) -> Counter[str]:
    """Import every file of calls under data/calls and in DVC's cache; returns the number of new
    replies by stage. Raises DataError, with file and line, for a malformed file."""
    added = Counter[str]()
    for stage, file in call_files():
        added[stage] += sum(put(store, call) for call in read_calls(file))
    return added


def call_files() -> Iterator[tuple[str, Path]]:
    """(stage, file) of the files under data/calls, then of those in DVC's cache."""
    for file in sorted(FOLDER.glob("*.jsonl")):
        yield file.stem, file
    named = {Path(path): out["md5"] for path, out in lock_outputs().items()}
    if calls := {path: md5 for path, md5 in named.items() if path.parent == FOLDER}:
        objects = dvc_cache()
        for path, md5 in calls.items():
            if (kept := objects / md5[:2] / md5[2:]).is_file():
                yield path.stem, kept


def read_calls(file: Path) -> Iterator[Call]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            yield parse_row(line, Call, f"{file}, line {number}")


def put(store: CallStore, call: Call) -> bool:
    """Store an imported reply, at no cost; returns whether the store lacked it."""
    if store.get(call.key) is not None:
        return False
    reply = call.reply.model_dump_json(exclude_defaults=True)
    store.write(Record.now("call", call.key, call.model, IMPORTED, 0.0, reply))
    return True


def dvc_cache() -> Path:
    """The folder of DVC's cache, which holds files by their md5."""
    from dvc.repo import Repo

    with closing(Repo(os.getcwd())) as repo:
        return Path(repo.cache.local.path)
