"""Batch calls in OpenAI's file format: submitted by one run, collected by a later one.

A run looks up the batches with its rows (their ids are in the call store) and stores the answers of
finished ones. Rows that a batch failed to answer are asked online, rows of no batch are submitted
as a new one, and the run ends with exit code 3 while a batch is outstanding. With `base_url: files`
nothing is sent: the file stays in .quip/batches for `vllm run-batch`, whose output is read from the
same folder.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp

from quip.core.jsonl import atomic
from quip.llm.budget import BudgetGuard
from quip.llm.http import Client, TransientError
from quip.llm.reply_store import Record
from quip.llm.requests.chat import BadReply, Request
from quip.llm.session import Item, Session
from quip.runtime import paths
from quip.runtime.errors import EndpointError

MAX_ROWS = 10_000
"""Rows of one batch, so that its answers stay below the largest body that is read."""
SHORT = 16
"""Length of the key prefixes in the list of a batch's rows."""
RUNNING = {"validating", "in_progress", "finalizing", "cancelling"}
LOOK_SECONDS = 0.5

Rows = Mapping[str, Request]


class Batches:
    """The batches of one session; `client` is open at `base_url`."""

    def __init__(
        self, session: Session, budget: BudgetGuard, client: Client, base_url: str
    ) -> None:
        self.session, self.budget, self.client, self.base_url = session, budget, client, base_url
        self.settings, self.store = session.settings, session.store
        self.waiting = 0

    async def collect(self, missing: Iterable[Item]) -> Iterator[Item]:
        """Store finished answers and submit new rows; returns the rows left to online calls."""
        rows = dict(missing)
        turn = sha256(f"{self.base_url} {self.settings.model}".encode()).hexdigest()
        while not self.store.lock_key(turn):
            await asyncio.sleep(LOOK_SECONDS)
        try:
            failed, outstanding = await self.look(rows)
            seen = failed | outstanding
            fresh = {k: r for k, r in rows.items() if k not in seen and self.store.get(k) is None}
            await self.hand_in(fresh)
        finally:
            self.store.unlock_key(turn)
        self.waiting = len(outstanding) + len(fresh)
        return ((key, rows[key]) for key in sorted(failed))

    async def look(self, rows: Rows) -> tuple[set[str], set[str]]:
        """The rows that finished batches failed to answer, and the rows of unfinished batches."""
        failed, outstanding = set[str](), set[str]()
        self.store.refresh()
        for record in list(self.store.batches.values()):
            batch = json.loads(record.payload)
            short = set(batch["rows"])
            held = {key: request for key, request in rows.items() if key[:SHORT] in short}
            if record.model != self.settings.model or batch["base_url"] != self.base_url:
                continue
            contents = await self.answers(record.key, batch["id"]) if held else None
            if contents is None:
                outstanding |= set(held)
                continue
            for content in contents:
                self.take(content, held)
            failed |= {key for key in held if self.store.get(key) is None}
            self.store.write(Record.now("batch", record.key, record.model, record.by, 0.0, ""))
        return failed, outstanding

    async def answers(self, name: str, batch: str) -> list[bytes] | None:
        """The contents of a batch's answer files; None while the batch is not ready."""
        if self.settings.by_file:
            file = output(name)
            return [file.read_bytes()] if file.is_file() else None
        found = json.loads(await self.send("GET", f"/batches/{batch}"))
        if found["status"] in RUNNING:
            return None
        if found["status"] == "failed":
            print(f"batch {batch} failed: {self.client.clean(str(found.get('errors')))[:300]}")
        files = [found[kind] for kind in ("output_file_id", "error_file_id") if found.get(kind)]
        return [await self.send("GET", f"/files/{file}/content") for file in files]

    def take(self, content: bytes, held: Rows) -> None:
        """Store every readable answer; the other rows are left to online calls."""
        session = self.session
        for line in content.splitlines():
            key, body = answer(line)
            if key not in held or self.store.get(key) is not None:
                continue
            try:
                reply = session.route.read(body, held[key], session.expected())
            except BadReply as error:
                session.record_rejected(key, held[key], error, batch=True)
                session.reasons[f"in a batch: {error}"] += 1
                continue
            session.keep(key, held[key], reply, batch=True)
            session.finish(key, reply, stored=False)

    async def hand_in(self, rows: Rows) -> None:
        items = iter(rows.items())
        while part := dict(islice(items, MAX_ROWS)):
            name = sha256(" ".join(sorted(part)).encode()).hexdigest()
            most = sum(self.session.ledger.most(request, batch=True) for request in part.values())
            self.budget.check_batch(most)
            with atomic(path(name)) as handle:
                for key, request in part.items():
                    handle.write(json.dumps(self.line(key, request)) + "\n")
            batch = name if self.settings.by_file else await self.submit(name)
            note = {"id": batch, "base_url": self.base_url, "most": most}
            payload = json.dumps({**note, "rows": [key[:SHORT] for key in part]})
            model, by = self.settings.model, self.session.by
            self.store.write(Record.now("batch", name, model, by, 0.0, payload))

    def line(self, key: str, request: Request) -> dict[str, Any]:
        route = self.session.route
        body = route.body(request, self.settings.model)
        return {"custom_id": key, "method": "POST", "url": f"/v1{route.path}", "body": body}

    async def submit(self, name: str) -> str:
        """Submit the batch `name`, unless the provider has it already; returns its id.

        The look-up makes a kill between submission and its record harmless.
        """
        known = json.loads(await self.send("GET", "/batches?limit=100")).get("data") or []
        for found in known:
            running = found["status"] in RUNNING | {"completed"}
            if running and (found.get("metadata") or {}).get("quip") == name:
                return str(found["id"])
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", path(name).read_bytes(), filename=path(name).name)
        file = json.loads(await self.send("POST", "/files", form, None))
        wanted = {
            "input_file_id": file["id"],
            "endpoint": f"/v1{self.session.route.path}",
            "completion_window": "24h",
            "metadata": {"quip": name},
        }
        return str(json.loads(await self.send("POST", "/batches", json.dumps(wanted)))["id"])

    async def send(
        self, method: str, address: str, data: Any = None, kind: str | None = "application/json"
    ) -> bytes:
        """The body of one request that must succeed, after retries; a form cannot be sent twice.
        Raises EndpointError."""
        tries = 1 if isinstance(data, aiohttp.FormData) else self.settings.retries + 1
        for left in reversed(range(tries)):
            try:
                content, _ = await self.client.send(method, address, data, kind)
                return content
            except (TransientError, BadReply) as error:
                if isinstance(error, BadReply) or not left:
                    where = f"{self.session.where()}: {method} {address.partition('?')[0]}"
                    raise EndpointError(f"{where}: {error}. {self.session.kept()}.") from None
                await asyncio.sleep(error.wait or LOOK_SECONDS)
        raise AssertionError("no try at all")

    def come_back(self) -> EndpointError:
        what = f"{self.waiting:,} rows ({self.session.what}) are in batches that are not ready"
        names = sorted(k for k in self.store.batches if not output(k).is_file())
        then = "come back later and run `dvc repro`."
        if self.settings.by_file and names:
            files = f"-i {path(names[0])} -o {output(names[0])}"
            then = f"`vllm run-batch {files} --model {self.settings.model}` answers one; {then}"
        return EndpointError(f"{self.session.where()}: {what}; {self.session.kept()}; {then}")


def path(name: str) -> Path:
    return paths.state("batches", f"{name[:SHORT]}.jsonl")


def output(name: str) -> Path:
    return path(name).with_suffix(".out.jsonl")


def answer(line: bytes) -> tuple[str, bytes]:
    """(key, body of the answer) of one line; an unreadable line has an empty key."""
    try:
        found = json.loads(line)
        body = (found.get("response") or {}).get("body") or {"error": found.get("error")}
        return str(found["custom_id"]), json.dumps(body).encode()
    except (ValueError, KeyError, AttributeError):
        return "", b""
