"""Checks of endpoints, disk, stores and locks for `quip doctor`. They change nothing."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from quip.core import params
from quip.llm.endpoints import Endpoint, api_key, endpoint
from quip.llm.reply_store import CallStore
from quip.models import weights
from quip.models.pins import MODELS
from quip.runtime import paths
from quip.runtime.errors import EndpointError, QuipError
from quip.tracking import mlflow_store, runs

SECONDS = 5.0


def http_status(url: str, key: str | None = None) -> int | str:
    """The HTTP status of a GET; the reason as text when there is no answer."""
    if not url.startswith(("http://", "https://")):
        return "not an http address"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=SECONDS) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def used_endpoints() -> Iterator[tuple[str, Endpoint]]:
    """(name, settings) of every endpoint that a role uses; empty when params.yaml is wrong, which
    the check of params reports."""
    try:
        names, _ = roles_endpoints(params.read_params())
        found = [(name, endpoint(name)) for name in names]
    except QuipError:
        return
    yield from found


def keys() -> Iterator[Finding]:
    """Whether the API key of every endpoint in use is set. Keys are never printed."""
    for name, settings in used_endpoints():
        if settings.recorded:
            continue
        try:
            key = api_key(name, settings)
        except EndpointError:
            what = f"endpoint '{name}': {settings.api_key_env} is not set"
            remedy = f"`export {settings.api_key_env}=...`, or a line in .env"
            yield Finding("mend", what, remedy)
            continue
        if key:
            yield Finding("ok", f"endpoint '{name}': {settings.api_key_env} is set")


def addresses() -> Iterator[Finding]:
    """Whether every endpoint in use answers and accepts the key.

    The check asks for the list of models, which costs nothing. Some servers have no such list, so
    any answer but a refusal counts.
    """
    for name, settings in used_endpoints():
        if settings.embedded:
            yield Finding("ok", f"endpoint '{name}': runs in the stage's own process")
        elif settings.by_file:
            yield Finding("ok", f"endpoint '{name}': answers by hand")
        elif not settings.recorded:
            yield check_address(name, settings)


def check_address(name: str, settings: Endpoint) -> Finding:
    try:
        key = api_key(name, settings)
    except EndpointError:
        key = None  # `keys` reports it
    status = http_status(f"{settings.base_url}/models", key)
    where = f"endpoint '{name}': {settings.base_url}"
    if isinstance(status, str):
        variable = f"QUIP_BASE_URL_{name.upper().replace('-', '_')}"
        remedy = f"start it, or correct endpoints.{name}.base_url (or {variable})"
        return Finding("mend", f"{where} cannot be reached ({status})", remedy)
    if status in (401, 403) and key:
        remedy = f"put a valid key into {settings.api_key_env}"
        return Finding("mend", f"{where} refuses the key ({status})", remedy)
    if status in (401, 403) and not settings.api_key_env:
        remedy = f"name the variable that holds one as endpoints.{name}.api_key_env"
        return Finding("mend", f"{where} wants a key ({status})", remedy)
    return Finding("ok", f"{where} answers")


def roles_endpoints(sections: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The names of the endpoints that the roles use, and the section `endpoints`."""
    names = [(sections.get(role) or {}).get("endpoint") for role in ("teacher", "critic")]
    names += (sections.get("judge") or {}).get("endpoints") or []
    names += [(sections.get("safety") or {}).get("endpoint"), *audited_endpoints(sections)]
    return sorted({str(name) for name in names if name}), sections.get("endpoints") or {}


def audited_endpoints(sections: dict[str, Any]) -> list[str]:
    """The endpoints that critics of a panel or of the audit name in their short form
    (`mcp@openai`)."""
    critic, audit = (sections.get(name) or {} for name in ("critic", "audit"))
    panel = (critic.get("panel") or {}).get("signals") if critic.get("kind") == "panel" else []
    return [
        spec.partition("@")[2]
        for spec in [*(panel or []), *(audit.get("kinds") or [])]
        if isinstance(spec, str) and "@" in spec
    ]


def tracking_server(uri: str) -> Finding:
    """Whether a tracking server answers at /health, as MLflow's clients ask; a database passes."""
    status = http_status(f"{uri}/health") if uri.startswith("http") else 200
    if status == 200:
        return Finding("ok", f"MLflow store: {without_password(uri)}")
    what = f"MLflow store: {without_password(uri)} does not answer ({status})"
    return Finding("mend", what, "start the server, or unset MLFLOW_TRACKING_URI")


def without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


Level = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Finding:
    """Result of a check. `mend` stops a run; a `note` does not, or resolves itself."""

    level: Level
    what: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.level:<5}{self.what}{f' -> {self.remedy}' if self.remedy else ''}"


FREE_GIB = 6


def disk() -> Iterator[Finding]:
    """Free space for a run, and in the cache for the weights that are still to be fetched."""
    remedy = "`dvc gc --workspace` drops what no stage needs"
    yield check_space(paths.root(), FREE_GIB, f"a run wants {FREE_GIB}; {remedy}")
    lacking = sum(size for _, size in weights.missing_models(MODELS)) / 2**30
    if lacking:
        wanted = f"the weights want {2 * lacking:,.1f}; QUIP_CACHE names another folder"
        yield check_space(
            weights.cache(), 2 * lacking, wanted
        )  # the packages are kept till all is there


def check_space(folder: Path, gib: float, remedy: str) -> Finding:
    """Whether `gib` are free on the disk of `folder`, which need not exist yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    what = f"{free:,.0f} GiB free on the disk of {folder}"
    return Finding("ok", what) if free >= gib else Finding("mend", what, remedy)


def call_store() -> Iterator[Finding]:
    """Whether the call store is readable and no record is damaged."""
    journal = paths.root() / ".quip" / "calls.journal"
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


def tracking_store() -> Iterator[Finding]:
    """Whether the tracking store is intact and its artifact addresses are valid here."""
    file = mlflow_store.database_file()
    if file is None:
        yield tracking_server(mlflow_store.store_uri())
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
            found = rows.execute(query, (mlflow_store.EXPERIMENT,)).fetchone()
    except sqlite3.Error as error:
        return Finding("mend", f"{file.name} cannot be read ({error})", aside)
    if state != "ok":
        return Finding("mend", f"{file.name} is damaged ({state})", aside)
    if found and is_moved(found[0]):
        what = f"{file.name} points to {found[0]}: this checkout was moved"
        return Finding("note", what, "`dvc repro -f -s register` registers the models anew")
    return Finding("ok", file.name)


def is_moved(location: str) -> bool:
    parts = urlsplit(location)
    here = mlflow_store.artifact_uri() == location
    return parts.scheme == "file" and not here and not Path(unquote(parts.path)).exists()


def dvc_locks() -> Iterator[Finding]:
    """Locks of DVC that are held or left over.

    DVC's locks end with its process. Two things outlive it: a read-write table that a kill has cut
    off, and hard-linked locks (`core.hardlink_lock`).
    """
    lock, table = Path(".dvc/tmp/lock"), Path(".dvc/tmp/rwlock")
    if lock.is_file() and is_locked(lock):
        yield Finding("note", "another dvc is at work here", "wait for it to end")
    elif lock.is_file() and (owner := dead_owner(lock)):
        yield Finding("mend", f"{lock} is held by dead process {owner}", f"`rm {lock}`")
    if table.is_file() and not is_json(table):
        yield Finding("mend", f"{table} is cut off", f"with no dvc running, `rm {table}`")


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock of `file`."""
    with file.open("r+b") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def dead_owner(lock: Path) -> int | None:
    """The process named in a hard-linked lock file (`path:host:pid:random`) if it has ended, else
    None."""
    found = re.search(r":([^:]+):(\d+):\d+\s*$", lock.read_text("utf-8", errors="replace"))
    here = found and found.group(1) == os.uname().nodename
    return (
        int(found.group(2))
        if found and here and not runs.process_exists(int(found.group(2)))
        else None
    )


def is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text("utf-8") or "{}")
    except ValueError:
        return False
    return True


def running_stages() -> Iterator[Finding]:
    for file in sorted(Path(".quip/locks").glob("*.lock")):
        if is_locked(file):
            what = f"stage {file.stem} is still running in another process"
            yield Finding("note", what, "`dvc repro` waits for it")
