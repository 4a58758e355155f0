"""The session of one `LLM.ask`: what its calls share, whoever makes them.

Endpoint, call store, ledger and budget, which requests still lack a reply, and the counts of what
came of the others. The scheduler makes a session's online calls and the batch API its batches;
both get the session handed in, and it knows neither.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator

from quip.llm.costs import Ledger
from quip.llm.endpoints import Budget, Endpoint, describe
from quip.llm.progress import Progress
from quip.llm.reply_store import CallStore, Record
from quip.llm.requests.chat import About, BadReply, ModelReply, Request, Usage
from quip.llm.requests.protocols import Route
from quip.runtime.errors import EndpointError

MAX_FIRST_FAILURES = 3
"""A stage stops when its first calls, this many, all failed."""

Item = tuple[str, Request]
"""(key, request)"""


class Session:
    """`total` requests to the endpoint `name` for `what`, asked and read by `route`.

    `keys` are those of all requests, in their order, and `about` says what those of a teacher or a
    comparison are about; `done` counts rows with a reply, `failed`
    those without, `answered` the replies that this process paid for.
    """

    def __init__(
        self,
        name: str,
        settings: Endpoint,
        store: CallStore,
        ledger: Ledger,
        budget: Budget,
        *,
        what: str,
        total: int,
        route: Route,
    ) -> None:
        self.name, self.settings, self.store = name, settings, store
        self.ledger, self.budget = ledger, budget
        self.what, self.total, self.route = what, total, route
        self.by = os.environ.get("DVC_STAGE") or what
        self.keys: list[str] = []
        self.about: dict[str, About] = {}
        self.pending: set[str] = set()
        self.reasons = Counter[str]()
        self.done = self.failed = self.answered = 0
        self.progress = Progress(what, total, self.note)

    def missing(self, requests: Iterable[Request]) -> Iterator[Item]:
        """The requests without a stored reply, each once; counts the others."""
        for request in requests:
            key = request.key(self.settings.model)
            self.keys.append(key)
            if request.about is not None:
                self.about[key] = request.about
            reply = self.stored(key)
            if reply is not None or key in self.pending:
                self.count(reply, stored=True)
                continue
            self.pending.add(key)
            yield key, request

    def stored(self, key: str) -> ModelReply | None:
        text = self.store.get(key)
        return None if text is None else ModelReply.model_validate_json(text)

    def expected(self) -> str | None:
        """The model name that replies must bear; the embedded engine has but one."""
        return None if self.settings.embedded else self.settings.answers_as or self.settings.model

    def keep(self, key: str, request: Request, reply: ModelReply, batch: bool = False) -> None:
        """Store a checked reply and what it cost."""
        cost = self.ledger.cost(request, reply.usage, reply.text, batch)
        document = reply.model_dump_json(exclude_defaults=True)
        self.store.put(key, self.settings.model, document, self.by, cost)
        self.ledger.paid += cost
        self.answered += 1

    def record_rejected(
        self, key: str, request: Request, error: BadReply, batch: bool = False
    ) -> None:
        """Note what a rejected reply cost, where the server says so."""
        if error.usage != Usage():
            cost = self.ledger.cost(request, error.usage, batch=batch)
            self.store.write(
                Record.now("waste", key, self.settings.model, self.by, cost, str(error)[:80])
            )
            self.ledger.paid += cost

    def finish(self, key: str, reply: ModelReply | None, stored: bool) -> None:
        """The row of `key` needs no further call: it has its `reply`, or failed for good."""
        self.pending.discard(key)
        self.count(reply, stored)

    def count(self, reply: ModelReply | None, stored: bool) -> None:
        self.progress.row(stored)
        if reply is not None:
            self.ledger.row(reply.usage, stored)
            self.done += 1
        elif not stored:
            self.ledger.counts["failed"] += 1
            self.failed += 1

    def check_failures(self) -> None:
        """Stop when the first calls all failed, or more than the share `budget.set_aside` did."""
        hopeless = self.failed >= MAX_FIRST_FAILURES and not self.done
        if not hopeless and self.failed <= self.budget.set_aside * self.total:
            return
        [(reason, _)] = self.reasons.most_common(1)
        raise EndpointError(
            f"{self.where()}: {self.failed:,} of {self.total:,} calls ({self.what}) gave "
            f"no readable reply, most often: {reason}, after {self.settings.retries + 1} tries. "
            f"{self.kept()}; mend it and run `dvc repro` to ask for the rest."
        )

    def where(self) -> str:
        return describe(self.name, self.settings)

    def kept(self) -> str:
        return f"{self.done:,} are done and kept"

    def note(self) -> str:
        counts = self.ledger.counts
        return f"{self.ledger.paid:.4f} spent, {counts['retries']:,} retries"

    def print_summary(self) -> None:
        """Print what came from where, when there is something to say."""
        stored = self.done - self.answered
        if stored:
            print(f"{self.name}: {stored:,} of {self.total:,} replies from the store")
        if self.failed or self.ledger.counts["retries"]:
            print(f"{self.name}: {self.note()}, {self.failed:,} rows set aside")
            for reason, count in self.reasons.most_common(3):
                print(f"  {count:,} x {reason}")
