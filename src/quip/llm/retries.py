"""The retry policy: which failures of a call are tried again, and after how many seconds. Pure."""

from __future__ import annotations

from typing import NamedTuple

from quip.llm.http import TransientError
from quip.llm.requests.chat import BadReply, Refused

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds between tries: doubling from the first to the longest (the scheduler adds jitter)."""


class Retry(NamedTuple):
    """Try again after `wait` seconds; `counts` says whether the failure used up a try."""

    wait: float
    counts: bool = True


def next_try(error: BadReply | TransientError, tried: int, others_answered: bool) -> Retry | None:
    """What follows the failure of a row with `tried` tries behind it; None: no other try.

    A refused row is not asked again. An endpoint that is busy is not broken: where other rows were
    answered meanwhile, its failure uses up no try; where it says how long to wait, the rate limiter
    waits and the row need not.
    """
    if isinstance(error, Refused):
        return None
    if isinstance(error, BadReply):
        return Retry(FIRST_WAIT)
    if error.busy:
        wait = FIRST_WAIT if error.wait is not None else doubled(tried)
        return Retry(wait, counts=not others_answered)
    return Retry(doubled(tried))


def doubled(tried: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0**tried)
