"""The budget: what is reserved before a call, and what is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from quip.llm.budget import BudgetGuard
from quip.llm.costs import Ledger
from quip.llm.endpoints import Budget, Endpoint
from quip.llm.reply_store import CallStore
from quip.llm.requests.chat import Request
from quip.llm.requests.protocols import CHAT
from quip.llm.session import Session
from quip.runtime.errors import EndpointError, ParamsError

REQUEST = Request((("user", "q"),), max_tokens=1_000_000)
"""At most 1 in money at `price_out` 1."""
Guarded = Callable[..., BudgetGuard]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with closing(CallStore(tmp_path / "calls.journal")) as store:

        def make(money: float | None, price: float | None = 1.0) -> BudgetGuard:
            settings = Endpoint(base_url="http://here/v1", model="m", price_in=0, price_out=price)
            budget, ledger = Budget(money=money), Ledger(settings)
            names = {"what": "test", "total": 1}
            return BudgetGuard(Session("one", settings, store, ledger, budget, route=CHAT, **names))

        yield make


def test_what_the_calls_in_flight_can_cost_is_reserved(guarded: Guarded) -> None:
    guard = guarded(2.5)

    async def third() -> float:
        first = await guard.reserve(REQUEST)
        await guard.reserve(REQUEST)
        waiting = asyncio.create_task(guard.reserve(REQUEST))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        guard.release(first)
        return await waiting

    assert asyncio.run(third()) == pytest.approx(1.0)
    assert guard.reserved == pytest.approx(2.0)


def test_a_call_is_refused_when_none_in_flight_can_make_room(guarded: Guarded) -> None:
    with pytest.raises(EndpointError, match=re.escape("budget.money is 0.5: 0.0000 is spent")):
        asyncio.run(guarded(0.5).reserve(REQUEST))


def test_without_a_limit_nothing_is_refused(guarded: Guarded) -> None:
    guard = guarded(None, price=None)
    guard.check_prices()
    guard.check_batch(1e9)
    assert asyncio.run(guard.reserve(REQUEST)) == 0


def test_a_limit_needs_prices(guarded: Guarded) -> None:
    with pytest.raises(ParamsError, match=r"budget.money needs endpoints.one.price_in"):
        guarded(1.0, price=None).check_prices()


def test_a_batch_that_could_pass_the_limit_is_refused(guarded: Guarded) -> None:
    guarded(2.0).check_batch(2.0)
    with pytest.raises(EndpointError, match=r"the next one 2\.1"):
        guarded(2.0).check_batch(2.1)
