"""Adaptive rate limit: how many calls may be in flight at an endpoint, and how fast they start.

The limit rises while more calls in flight give more answers a second, and falls on 429 and on
slower answers. The limiter pauses as long as the endpoint asks, spaces calls by the allowed
requests and tokens a minute, and takes a fair share when other processes ask the same endpoint.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping

FIRST_LIMIT = 16
PAYS = 1.05
"""A higher limit is kept when the rate of answers rises by this factor."""
SLOWER = 0.5
"""The limit falls when the rate of answers is below this share of the best rate."""
CUT = 0.8
WINDOW = 32
"""Smallest number of answers by which a limit is judged."""
HOLD = 4
"""Windows between a rise that was not kept and the next rise."""
COOL_SECONDS = 5.0
"""Seconds after a cut in which further 429 answers do not cut again."""
BURST_SECONDS = 3.0
"""Seconds by which calls may run ahead of an even pace."""


class Pace:
    """At most `per_minute` of something, evenly spaced but for a short burst; None: no limit."""

    def __init__(self, per_minute: int | None) -> None:
        self.per_minute = per_minute
        self.due = 0.0

    def delay(self, now: float) -> float:
        return max(0.0, self.due - now - BURST_SECONDS) if self.per_minute else 0.0

    def take(self, amount: float, share: int, now: float) -> None:
        if self.per_minute:
            self.due = max(self.due, now) + amount * share * 60.0 / self.per_minute


class RateLimiter:
    """Limiter of calls in flight: each call awaits `enter` before and calls `leave` after it.

    `share` is the number of processes that ask the same endpoint.

    Rates are calls in flight over mean seconds an answer (Little's law), over windows of answers
    during which the limit was reached.
    """

    def __init__(
        self, ceiling: int, rpm: int | None = None, tpm: int | None = None, adapts: bool = True
    ) -> None:
        self.ceiling, self.adapts, self.share = ceiling, adapts, 1
        self.limit = float(min(ceiling, FIRST_LIMIT)) if adapts else float(ceiling)
        self.requests, self.tokens = Pace(rpm), Pace(tpm)
        self.in_flight, self.until, self.cut_at = 0, 0.0, float("-inf")
        self.doubling, self.full, self.hold = True, False, 0
        self.before: float | None = None
        self.best, self.done, self.seconds = 0.0, 0, 0.0
        self.freed = asyncio.Event()

    def room(self) -> int:
        """Number of calls that may be in flight now."""
        return max(1, min(int(self.limit), self.ceiling // self.share))

    async def enter(self, tokens: float) -> None:
        while True:
            now = time.monotonic()
            wait = max(self.until - now, self.requests.delay(now), self.tokens.delay(now))
            if wait > 0:
                await asyncio.sleep(min(wait, 1.0))
            elif self.in_flight >= self.room():
                self.full = True
                self.freed.clear()
                await self.freed.wait()
            else:
                break
        self.requests.take(1, self.share, now)
        self.tokens.take(tokens, self.share, now)
        self.in_flight += 1

    def leave(self, seconds: float | None) -> None:
        """End a call that took `seconds`; None when it had no answer."""
        self.in_flight -= 1
        self.freed.set()
        if seconds is None or not self.adapts:
            return
        self.done, self.seconds = self.done + 1, self.seconds + seconds
        if self.done >= (self.room() if self.doubling else max(WINDOW, self.room())):
            if self.full:
                self.climb(self.room() * self.done / max(self.seconds, 1e-6))
            self.done, self.seconds, self.full = 0, 0.0, False

    def climb(self, rate: float) -> None:
        """Judge the last step by a window's `rate` (answers a second), and take the next step."""
        if rate < SLOWER * self.best:
            self.shrink()
        elif self.before is not None and rate < PAYS * self.best:
            self.limit, self.before, self.hold, self.doubling = self.before, None, HOLD, False
        elif self.hold or self.limit >= self.ceiling:
            self.before, self.hold = None, max(0, self.hold - 1)
        else:
            self.before = self.limit
            step = self.limit if self.doubling else max(1.0, self.limit / 8)
            self.limit = min(float(self.ceiling), self.limit + step)
        self.best = max(self.best, rate)

    def shrink(self) -> None:
        self.limit = max(1.0, self.limit * CUT)
        self.doubling, self.before, self.hold, self.best = False, None, HOLD, 0.0

    def busy(self, wait: float | None) -> None:
        """React to a 429 (or a 503 with a wait): lower the limit, and pause all calls."""
        now = time.monotonic()
        self.until = max(self.until, now + (wait or 0.0))
        if self.adapts and now - self.cut_at > COOL_SECONDS:
            self.cut_at = now
            self.shrink()

    def heed(self, headers: Mapping[str, str], tokens: float) -> None:
        """Pause before the endpoint answers 429, by its headers `x-ratelimit-*`."""
        for kind, least in (("requests", 1.0), ("tokens", tokens)):
            left = number(headers.get(f"x-ratelimit-remaining-{kind}"))
            reset = seconds(headers.get(f"x-ratelimit-reset-{kind}"))
            if left is not None and reset and left < least:
                self.until = max(self.until, time.monotonic() + min(reset, 60.0))


def number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text: str | None) -> float | None:
    """A duration as providers write it: `1m30.5s`, `250ms`, or plain seconds."""
    if text is None or (plain := number(text)) is not None:
        return None if text is None else plain
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", text)
    return sum(float(amount) * UNITS[unit] for amount, unit in parts) if parts else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `Retry-After` (seconds or a date) or `retry-after-ms`."""
    exact = number(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    text = headers.get("Retry-After")
    plain = number(text)
    return plain if plain is not None or text is None else until(text)


def until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except ValueError:
        return None
