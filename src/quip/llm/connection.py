"""LLM client for an OpenAI-compatible endpoint: teacher, critic and judges use the same one.

Each reply is looked up in the call store first, checked before use, and stored when it arrives.
Memory grows only by the keys and what the calls are about: requests are taken one by one, replies
are read back from the store. `base_url: embedded` starts the engine in this process, when a reply
is missing in the store. A recorded endpoint answers from its file alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from quip.llm import recorded
from quip.llm.call_outputs import fill_empty, note_used
from quip.llm.costs import Ledger
from quip.llm.endpoints import Budget, Endpoint, budget, endpoint
from quip.llm.reply_store import CallStore, open_store
from quip.llm.requests.chat import ModelReply, Request
from quip.llm.requests.protocols import CHAT, Route
from quip.llm.scheduler import RequestScheduler
from quip.llm.session import Session
from quip.models import llamacpp
from quip.runtime import clock


@dataclass
class LLM:
    """Asks one endpoint. `ledger` counts what the rows needed, stored replies included."""

    name: str
    settings: Endpoint
    store: CallStore
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.settings)

    def ask(
        self,
        requests: Iterable[Request],
        what: str,
        total: int | None = None,
        route: Route = CHAT,
    ) -> Iterator[ModelReply | None]:
        """The replies in the order of `requests`; None where a call failed for good. `route`
        determines how requests are posted and replies read.

        Raises EndpointError when the endpoint cannot be used at all, or when more than the share
        `budget.set_aside` of the calls failed. Replies received until then are in the store. A
        recorded endpoint raises DataError when its file lacks a reply.
        """
        if self.settings.recorded:
            return recorded.answers(self.name, self.settings, requests, self.ledger)
        if total is None:
            requests = list(requests)
            total = len(requests)
        session = Session(
            self.name,
            self.settings,
            self.store,
            self.ledger,
            self.budget,
            what=what,
            total=total,
            route=route,
        )
        RequestScheduler(session, self.address).run(requests)
        note_used(session.keys, self.settings.model, session.about)
        return (session.stored(key) for key in session.keys)

    @contextmanager
    def address(self) -> Iterator[str]:
        """The endpoint's base URL; the embedded engine runs for as long as this is open."""
        if not self.settings.embedded:
            yield self.settings.base_url
            return
        with ExitStack() as stack:
            with clock.measure("start"):
                serving = llamacpp.serve(self.settings.model, self.settings.concurrency)
                base_url = stack.enter_context(serving)
            yield base_url

    def spent(self) -> dict[str, float | str]:
        """The ledger with the money it stands for, in the currency of the prices."""
        return self.ledger.summary()


@contextmanager
def connect(name: str) -> Iterator[LLM]:
    """An LLM for the endpoint `name` of params.yaml, over the project's call store. One that holds
    no reply imports those of the stages' outputs first."""
    settings, allowed, store = endpoint(name), budget(), open_store()
    try:
        if not settings.recorded:
            fill_empty(store)
        yield LLM(name, settings, store, allowed)
    finally:
        store.close()
