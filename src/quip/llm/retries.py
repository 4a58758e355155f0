"""Retry policy: which failed calls are tried again, and after how many seconds. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

from quip.llm.http import TransientError
from quip.llm.requests.chat import BadReply, Refused

FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
"""Seconds between tries: doubling from the first to the longest (the scheduler adds jitter)."""


class Retry(NamedTuple):
    """Another try after `wait` seconds; `counts` tells whether the failure used up a try."""

    wait: float
    counts: bool = True


def next_try(error: BadReply | TransientError, tried: int, others_answered: bool) -> Retry | None:
    """The next try after a failure of a row that has used `tried` tries; None: no other try.

    A refused row is not asked again. A failure of a busy endpoint uses up no try when other rows
    were answered meanwhile. When the endpoint asks for a wait, the rate limiter waits for it, so
    the row waits only FIRST_WAIT.
    """
    if isinstance(error, Refused):
        return None
    if isinstance(error, BadReply):
        return Retry(FIRST_WAIT)
    if error.busy:
        wait = FIRST_WAIT if error.wait is not None else backoff_seconds(tried)
        return Retry(wait, counts=not others_answered)
    return Retry(backoff_seconds(tried))


def backoff_seconds(tried: int) -> float:
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0**tried)
