"""Budget guard: refuses calls and batches that could take the call store past `budget.money`."""

from __future__ import annotations

import asyncio
import json

from quip.llm.costs import Prices, prices
from quip.llm.requests.chat import Request
from quip.llm.session import Session
from quip.runtime.errors import EndpointError, ParamsError

LOOK_SECONDS = 0.02
"""Seconds between two checks of a call that waits for room in the budget."""


class BudgetGuard:
    """The budget of one session. `reserved` is the most that the calls in flight can cost."""

    def __init__(self, session: Session) -> None:
        self.session, self.store = session, session.store
        self.limit = session.budget.money
        self.reserved = 0.0

    def check_prices(self) -> None:
        """Refuse a budget at an endpoint without prices. Raises ParamsError."""
        settings = self.session.settings
        free = settings.embedded or settings.by_file or prices(settings) != Prices()
        if self.limit is not None and not free:
            raise ParamsError(
                f"params.yaml: budget.money needs endpoints.{self.session.name}.price_in and "
                "price_out; without prices the cost of a call is unknown."
            )

    async def reserve(self, request: Request) -> float:
        """Wait until the budget has room for a call, then reserve the most that it can cost.

        Raises EndpointError when there is no room and no call is in flight that could free some.
        """
        most = self.session.ledger.most(request)
        while self.limit is not None and most:
            self.store.refresh()
            if self.store.money + self.reserved + most <= self.limit:
                break
            if not self.reserved:
                raise self.refusal("(`quip calls count`) and the next call could pass it")
            await asyncio.sleep(LOOK_SECONDS)
        self.reserved += most
        return most

    def release(self, most: float) -> None:
        """End a reservation; the store holds the real cost of the call by now."""
        self.reserved -= most

    def check_batch(self, most: float) -> None:
        """Refuse a batch of at most `most` that, with those outstanding, could pass the budget.
        Raises EndpointError."""
        open_ = sum(json.loads(record.payload)["most"] for record in self.store.batches.values())
        if self.limit is not None and self.store.money + open_ + most > self.limit:
            raise self.refusal(
                f"(`quip calls count`), open batches could cost {open_:.4f} and the next one "
                f"{most:.4f}"
            )

    def refusal(self, why: str) -> EndpointError:
        return EndpointError(
            f"budget.money is {self.limit:g}: {self.store.money:.4f} is spent {why}. "
            f"{self.session.kept()}; raise it in params.yaml and run `dvc repro` to go on."
        )
