"""The calls of one stage: fed to the endpoint one by one, tried again, stored, counted.

What ends them early: an error that no row can survive, a budget, a full disk, or more failed rows
than params allow. Calls in flight are waited for first, since they are paid for.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from quip.llm.batch_api import Batches
from quip.llm.costs import LETTERS_PER_TOKEN, Prices, prices
from quip.llm.endpoints import api_key
from quip.llm.http import Client, Passing
from quip.llm.progress import Progress
from quip.llm.rate_limit import Gate
from quip.llm.reply_store import Record
from quip.llm.requests.chat import BadReply, ModelReply, Refused, Request, Usage
from quip.llm.requests.protocols import CHAT, Way
from quip.runtime import clock
from quip.runtime.errors import EndpointError, ParamsError

if TYPE_CHECKING:
    from quip.llm.connection import Oracle


FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds between tries: doubling from the first to the longest, with jitter."""


HOPELESS = 3
"""A stage stops when its first calls, this many, all failed."""


LOOK_SECONDS = 0.3
"""How often a row that another process is asking for is looked up again."""


COMPANY_SECONDS = 2.0
"""How often the other processes at the endpoint are counted."""

Item = tuple[str, Request]


class Asking:
    """One `Oracle.ask`: `keys` are those of all its requests, in their order."""

    def __init__(self, oracle: Oracle, what: str, total: int, way: Way = CHAT) -> None:
        self.oracle, self.what, self.total, self.way = oracle, what, total, way
        self.settings, self.store, self.ledger = oracle.settings, oracle.store, oracle.ledger
        self.by = os.environ.get("DVC_STAGE") or what
        self.keys: list[str] = []
        self.pending: set[str] = set()
        self.in_flight: set[asyncio.Task[None]] = set()
        self.reasons = Counter[str]()
        self.timings = Counter[str]()
        self.done = self.failed = self.answered = 0
        self.reserved = 0.0

    def run(self, requests: Iterable[Request]) -> None:
        with Progress(self.what, self.total, self.note) as self.bar:
            missing = self.missing(requests)
            first = next(missing, None)
            if first is not None:
                self.check_prices()
                one_token = self.settings.embedded and first[1].max_tokens == 1
                self.ceiling = 1 if one_token else self.settings.concurrency
                with clock.within("asking"), self.oracle.address() as base_url:
                    asyncio.run(self.ask_all(base_url, chain([first], missing)))
                clock.divide("asking", +self.timings or {"calls": 1.0})
        self.tell()

    def missing(self, requests: Iterable[Request]) -> Iterator[Item]:
        """The requests without a stored reply, each once; counts the others."""
        for request in requests:
            key = request.key(self.settings.model)
            self.keys.append(key)
            reply = self.oracle.stored(key)
            if reply is not None or key in self.pending:
                self.count(reply, stored=True)
                continue
            self.pending.add(key)
            yield key, request

    async def ask_all(self, base_url: str, missing: Iterator[Item]) -> None:
        embedded = self.settings.embedded
        key = None if embedded else api_key(self.oracle.name, self.settings)
        self.gate = Gate(self.ceiling, self.settings.rpm, self.settings.tpm, adapts=not embedded)
        seat = self.store.sit(base_url)
        company = asyncio.create_task(self.count_company(seat))
        try:
            async with Client(self.oracle.name, self.settings, base_url, key) as self.client:
                await self.answer(base_url, missing)
        finally:
            company.cancel()
            self.store.leave(seat)

    async def answer(self, base_url: str, missing: Iterator[Item]) -> None:
        if not self.settings.batched:
            return await self.feed(missing)
        batches = Batches(self, base_url)
        left = await batches.collect(missing)
        if self.settings.by_file:
            for key, _ in left:
                self.pending.discard(key)
                self.count(None, stored=False)
                self.check_failures()
        else:
            await self.feed(left)
        if batches.waiting:
            raise batches.come_back()

    async def count_company(self, seat: int) -> None:
        while not self.settings.embedded:
            self.gate.share = self.store.company(seat)
            await asyncio.sleep(COMPANY_SECONDS)

    async def feed(self, missing: Iterator[Item]) -> None:
        """Keep a bounded number of rows at work; the first error that counts ends it."""
        tasks: set[asyncio.Task[None]] = set()
        most = 2 * self.ceiling + 8 if self.ceiling > 1 else 1
        try:
            for key, request in missing:
                tasks.add(asyncio.create_task(self.row(key, request)))
                while len(tasks) >= most:
                    tasks = await self.settle(tasks)
            while tasks:
                tasks = await self.settle(tasks)
        except EndpointError:
            await self.land(tasks)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self, tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        tasks -= done
        errors = [error for task in done if (error := task.exception()) is not None]
        if errors:
            raise errors[0]
        return left

    async def land(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for the calls in flight, which are paid for; the others are given up."""
        self.settings = self.settings.model_copy(update={"retries": -1})
        for task in tasks - self.in_flight:
            task.cancel()
        if self.in_flight & tasks:
            await asyncio.wait(self.in_flight & tasks)

    async def row(self, key: str, request: Request) -> None:
        """Answer one row, by a call of our own or by that of another process."""
        reply, ours = None, await self.claimed(key)
        if not ours:
            self.count(self.oracle.stored(key), stored=True)
            self.pending.discard(key)
            return
        try:
            reply = await self.tries(key, request)
        finally:
            self.store.release(key)
        self.pending.discard(key)
        self.count(reply, stored=False)
        if reply is None:
            self.check_failures()

    async def claimed(self, key: str) -> bool:
        """Whether we are to ask; False once another process has stored the reply."""
        while not self.store.claim(key):
            await asyncio.sleep(LOOK_SECONDS)
            if self.store.get(key) is not None:
                return False
        if self.store.get(key) is None:
            return True
        self.store.release(key)
        return False

    async def tries(self, key: str, request: Request) -> ModelReply | None:
        """The reply; None when the row was refused or no try gave a readable one."""
        tried, reason = 0, "stopped"
        while tried <= self.settings.retries:
            before = self.answered
            try:
                return await self.call(key, request)
            except Refused as error:
                self.ledger.counts["refused"] += 1
                self.waste(key, request, error)
                reason = str(error)
                break
            except BadReply as error:
                self.waste(key, request, error)
                reason, wait = str(error), FIRST_WAIT
            except Passing as error:
                reason, wait = str(error), min(LONGEST_WAIT, FIRST_WAIT * 2**tried)
                if error.busy and error.wait is not None:
                    wait = FIRST_WAIT
                if error.busy and self.answered > before:
                    tried -= 1  # the endpoint is busy, not broken: others were answered meanwhile
            tried += 1
            if tried <= self.settings.retries:
                self.ledger.counts["retries"] += 1
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        self.reasons[self.client.clean(reason)] += 1
        return None

    async def call(self, key: str, request: Request) -> ModelReply:
        """One try: within the budget, through the gate, checked, stored."""
        most = await self.reserve(request)
        try:
            tokens = request.letters() / LETTERS_PER_TOKEN + request.max_tokens
            await self.gate.enter(tokens)
            began, seconds = time.monotonic(), None
            try:
                reply = await self.send(request, tokens)
                seconds = time.monotonic() - began
            finally:
                self.gate.leave(seconds)
            self.keep(key, request, reply)
            return reply
        finally:
            self.reserved -= most

    async def send(self, request: Request, tokens: float) -> ModelReply:
        task = asyncio.current_task()
        assert task
        self.in_flight.add(task)
        try:
            body = self.way.body(request, self.settings.model)
            content, headers = await self.client.ask(body, self.way.path)
            self.gate.heed(headers, tokens)
            reply = self.way.read(content, request, self.expected())
            self.timings.update(timings(content) if self.settings.embedded else {})
            return reply
        except Passing as error:
            if error.busy:
                self.gate.busy(error.wait)
            raise
        finally:
            self.in_flight.discard(task)

    def expected(self) -> str | None:
        """The model name that replies must bear; the embedded engine has but one."""
        return None if self.settings.embedded else self.settings.answers_as or self.settings.model

    def keep(self, key: str, request: Request, reply: ModelReply, batch: bool = False) -> None:
        cost = self.ledger.cost(request, reply.usage, reply.text, batch)
        document = reply.model_dump_json(exclude_defaults=True)
        self.store.put(key, self.settings.model, document, self.by, cost)
        self.ledger.paid += cost
        self.answered += 1

    def waste(self, key: str, request: Request, error: BadReply, batch: bool = False) -> None:
        """Note what a reply cost that is no answer."""
        if error.usage != Usage():
            cost = self.ledger.cost(request, error.usage, batch=batch)
            self.store.write(
                Record.now("waste", key, self.settings.model, self.by, cost, str(error)[:80])
            )
            self.ledger.paid += cost

    async def reserve(self, request: Request) -> float:
        """Set aside the most a call can cost, once the budget has room for it."""
        limit = self.oracle.allowed.money
        most = self.ledger.most(request)
        while limit is not None and most:
            self.store.refresh()
            if self.store.money + self.reserved + most <= limit:
                break
            if not self.reserved:
                raise EndpointError(
                    f"budget.money is {limit:g}: {self.store.money:.4f} is spent (`quip calls "
                    f"count`) and the next call could pass it. {self.kept()}; raise it in "
                    "params.yaml and run `dvc repro` to go on."
                )
            await asyncio.sleep(0.02)
        self.reserved += most
        return most

    def check_prices(self) -> None:
        priced = prices(self.settings) != Prices()
        free = self.settings.embedded or self.settings.by_file or priced
        if self.oracle.allowed.money is not None and not free:
            raise ParamsError(
                f"params.yaml: budget.money needs endpoints.{self.oracle.name}.price_in and "
                "price_out; without prices nothing can be counted against it."
            )

    def count(self, reply: ModelReply | None, stored: bool) -> None:
        self.bar.row(stored)
        if reply is not None:
            self.ledger.row(reply.usage, stored)
            self.done += 1
        elif not stored:
            self.ledger.counts["failed"] += 1
            self.failed += 1

    def check_failures(self) -> None:
        hopeless = self.failed >= HOPELESS and not self.done
        if not hopeless and self.failed <= self.oracle.allowed.set_aside * self.total:
            return
        [(reason, _)] = self.reasons.most_common(1)
        raise EndpointError(
            f"{self.client.where()}: {self.failed:,} of {self.total:,} calls ({self.what}) gave "
            f"no readable reply, most often: {reason}, after {self.settings.retries + 1} tries. "
            f"{self.kept()}; mend it and run `dvc repro` to ask for the rest."
        )

    def kept(self) -> str:
        return f"{self.done:,} are done and kept"

    def note(self) -> str:
        counts = self.ledger.counts
        return f"{self.ledger.paid:.4f} spent, {counts['retries']:,} retries"

    def tell(self) -> None:
        """One line on what came from where, when there is something to tell."""
        name, counts = self.oracle.name, self.ledger.counts
        stored = self.done - self.answered
        if stored:
            print(f"{name}: {stored:,} of {self.total:,} replies from the store")
        if self.failed or counts["retries"]:
            print(f"{name}: {self.note()}, {self.failed:,} rows set aside")
            for reason, count in self.reasons.most_common(3):
                print(f"  {count:,} x {reason}")


def timings(content: bytes) -> dict[str, int]:
    """Microseconds of prompt reading and of generation in a reply of llama.cpp's server."""
    found = json.loads(content).get("timings") or {}
    names = {"reading": "prompt_ms", "generation": "predicted_ms"}
    return {part: round(1000 * found.get(name, 0.0)) for part, name in names.items()}
