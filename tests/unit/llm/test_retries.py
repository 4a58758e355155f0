"""The retry policy: what is tried again, after how long, and what uses up a try."""

from __future__ import annotations

import pytest

from quip.llm.http import TransientError
from quip.llm.requests.chat import BadReply, Refused
from quip.llm.retries import FIRST_WAIT, LONGEST_WAIT, Retry, next_try


def test_a_refused_row_is_not_asked_again() -> None:
    assert next_try(Refused("no"), tried=0, others_answered=True) is None


def test_an_unreadable_reply_is_asked_again_soon() -> None:
    assert next_try(BadReply("no text"), tried=5, others_answered=True) == Retry(FIRST_WAIT)


@pytest.mark.parametrize(("tried", "wait"), [(0, 0.5), (1, 1.0), (3, 4.0), (20, LONGEST_WAIT)])
def test_waits_double_up_to_the_longest(tried: int, wait: float) -> None:
    assert next_try(TransientError("it answered 500"), tried, False) == Retry(wait)


def test_a_busy_endpoint_costs_no_try_while_others_are_answered() -> None:
    busy = TransientError("it answered 429", busy=True)
    assert next_try(busy, 2, others_answered=True) == Retry(2.0, counts=False)
    assert next_try(busy, 2, others_answered=False) == Retry(2.0, counts=True)


def test_the_wait_that_an_endpoint_asks_for_is_the_rate_limiter_s() -> None:
    busy = TransientError("it answered 429", wait=20.0, busy=True)
    assert next_try(busy, 4, others_answered=False) == Retry(FIRST_WAIT)
