"""Request scheduler: the online calls of a session, with retries, a rate limit and a budget.

A session ends early on an error of the whole endpoint, at the budget, on a full disk, or with more
failed rows than params allow. Calls in flight are awaited first, since they are paid for.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import chain

from quip.llm.batch_api import Batches
from quip.llm.budget import BudgetGuard
from quip.llm.costs import LETTERS_PER_TOKEN
from quip.llm.endpoints import api_key
from quip.llm.http import Client, TransientError
from quip.llm.rate_limit import RateLimiter
from quip.llm.requests.chat import BadReply, ModelReply, Refused, Request
from quip.llm.retries import next_try
from quip.llm.session import Item, Session
from quip.runtime import clock
from quip.runtime.errors import EndpointError

LOOK_SECONDS = 0.3
"""Seconds between two look-ups of a row that another process asks for."""
COUNT_SECONDS = 2.0
"""Seconds between two counts of the processes that ask the endpoint."""


class RequestScheduler:
    """Scheduler of the requests of one `session`. `address()` is a context with the endpoint's base
    URL; it is entered only when a reply is missing."""

    def __init__(
        self, session: Session, address: Callable[[], AbstractContextManager[str]]
    ) -> None:
        self.session, self.address = session, address
        self.settings, self.store, self.ledger = session.settings, session.store, session.ledger
        self.retries = session.settings.retries
        self.budget = BudgetGuard(session)
        self.in_flight: set[asyncio.Task[None]] = set()
        self.timings = Counter[str]()

    def run(self, requests: Iterable[Request]) -> None:
        """Get the missing replies. Raises EndpointError, ParamsError, OSError (disk)."""
        with self.session.progress:
            missing = self.session.missing(requests)
            first = next(missing, None)
            if first is not None:
                self.budget.check_prices()
                one_token = self.settings.embedded and first[1].max_tokens == 1
                self.ceiling = 1 if one_token else self.settings.concurrency
                with clock.measure("asking"), self.address() as base_url:
                    asyncio.run(self.ask_all(base_url, chain([first], missing)))
                clock.divide("asking", +self.timings or {"calls": 1.0})
        self.session.print_summary()

    async def ask_all(self, base_url: str, missing: Iterator[Item]) -> None:
        name, settings = self.session.name, self.settings
        key = None if settings.embedded else api_key(name, settings)
        self.limiter = RateLimiter(
            self.ceiling, settings.rpm, settings.tpm, adapts=not settings.embedded
        )
        seat = self.store.join(base_url)
        counting = asyncio.create_task(self.count_processes(seat))
        try:
            async with Client(name, settings, base_url, key) as self.client:
                await self.answer(base_url, missing)
        finally:
            counting.cancel()
            self.store.leave(seat)

    async def answer(self, base_url: str, missing: Iterator[Item]) -> None:
        if not self.settings.batched:
            return await self.feed(missing)
        batches = Batches(self.session, self.budget, self.client, base_url)
        left = await batches.collect(missing)
        if self.settings.by_file:
            for key, _ in left:
                self.session.finish(key, None, stored=False)
                self.session.check_failures()
        else:
            await self.feed(left)
        if batches.waiting:
            raise batches.come_back()

    async def count_processes(self, seat: int) -> None:
        """Keep this process's share of the endpoint up to date."""
        while not self.settings.embedded:
            self.limiter.share = self.store.active_processes(seat)
            await asyncio.sleep(COUNT_SECONDS)

    async def feed(self, missing: Iterator[Item]) -> None:
        """Run a bounded number of rows at once; the first EndpointError or OSError ends it."""
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
        """Await the calls in flight, which are paid for; cancel the other rows."""
        self.retries = -1
        for task in tasks - self.in_flight:
            task.cancel()
        if self.in_flight & tasks:
            await asyncio.wait(self.in_flight & tasks)

    async def row(self, key: str, request: Request) -> None:
        """Get the reply of one row, by a call of this process or of another one."""
        reply, ours = None, await self.lock_or_wait(key)
        if not ours:
            return self.session.finish(key, self.session.stored(key), stored=True)
        try:
            reply = await self.tries(key, request)
        finally:
            self.store.unlock_key(key)
        self.session.finish(key, reply, stored=False)
        if reply is None:
            self.session.check_failures()

    async def lock_or_wait(self, key: str) -> bool:
        """Whether this process is to ask; False once another process has stored the reply."""
        while not self.store.lock_key(key):
            await asyncio.sleep(LOOK_SECONDS)
            if self.store.get(key) is not None:
                return False
        if self.store.get(key) is None:
            return True
        self.store.unlock_key(key)
        return False

    async def tries(self, key: str, request: Request) -> ModelReply | None:
        """The reply; None when the row was refused or no try gave a readable one."""
        tried, reason = 0, "stopped"
        while tried <= self.retries:
            before = self.session.answered
            try:
                return await self.call(key, request)
            except (BadReply, TransientError) as error:
                self.note_failure(key, request, error)
                reason = str(error)
                retry = next_try(error, tried, self.session.answered > before)
            if retry is None:
                break
            tried += retry.counts
            if tried <= self.retries:
                self.ledger.counts["retries"] += 1
                await asyncio.sleep(retry.wait * random.uniform(0.5, 1.0))
        self.session.reasons[self.client.clean(reason)] += 1
        return None

    def note_failure(self, key: str, request: Request, error: BadReply | TransientError) -> None:
        if isinstance(error, Refused):
            self.ledger.counts["refused"] += 1
        if isinstance(error, BadReply):
            self.session.record_rejected(key, request, error)

    async def call(self, key: str, request: Request) -> ModelReply:
        """Make one try within the budget and the rate limit; check and store its reply."""
        most = await self.budget.reserve(request)
        try:
            tokens = request.letters() / LETTERS_PER_TOKEN + request.max_tokens
            await self.limiter.enter(tokens)
            began, seconds = time.monotonic(), None
            try:
                reply = await self.send(request, tokens)
                seconds = time.monotonic() - began
            finally:
                self.limiter.leave(seconds)
            self.session.keep(key, request, reply)
            return reply
        finally:
            self.budget.release(most)

    async def send(self, request: Request, tokens: float) -> ModelReply:
        task, route = asyncio.current_task(), self.session.route
        assert task
        self.in_flight.add(task)
        try:
            body = route.body(request, self.settings.model)
            content, headers = await self.client.ask(body, route.path)
            self.limiter.heed(headers, tokens)
            reply = route.read(content, request, self.session.expected())
            self.timings.update(timings(content) if self.settings.embedded else {})
            return reply
        except TransientError as error:
            if error.busy:
                self.limiter.busy(error.wait)
            raise
        finally:
            self.in_flight.discard(task)


def timings(content: bytes) -> dict[str, int]:
    """Microseconds of prompt reading and of generation in a reply of llama.cpp's server."""
    found = json.loads(content).get("timings") or {}
    names = {"reading": "prompt_ms", "generation": "predicted_ms"}
    return {part: round(1000 * found.get(name, 0.0)) for part, name in names.items()}
