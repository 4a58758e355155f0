"""How many calls at once: up while it pays, down on a 429, fair among processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from quip.llm import rate_limit
from quip.llm.rate_limit import Pace, RateLimiter


def load(limiter: RateLimiter, answers: int, seconds: Callable[[int], float]) -> None:
    """So many answers of an endpoint that takes `seconds(calls in flight)` for each, with more
    calls always waiting."""
    for _ in range(answers):
        limiter.full = True
        limiter.in_flight += 1
        limiter.leave(seconds(limiter.room()))


def test_the_limit_climbs_to_what_an_endpoint_with_many_slots_takes() -> None:
    limiter = RateLimiter(256)
    assert limiter.room() == rate_limit.FIRST_LIMIT
    load(limiter, 3000, lambda n: 0.2)
    assert limiter.room() == 256


def test_the_limit_stays_near_the_slots_of_an_endpoint_that_queues() -> None:
    limiter = RateLimiter(256)
    load(limiter, 20_000, lambda n: 0.2 * max(1.0, n / 32))
    assert 24 <= limiter.room() <= 64


def test_a_limit_that_is_never_reached_does_not_climb() -> None:
    limiter = RateLimiter(256)
    for _ in range(1000):
        limiter.in_flight += 1
        limiter.leave(0.1)
    assert limiter.room() == rate_limit.FIRST_LIMIT


def test_answers_that_slow_down_lower_the_limit() -> None:
    limiter = RateLimiter(64)
    load(limiter, 3000, lambda n: 0.2)
    before = limiter.room()
    load(limiter, 100, lambda n: 2.0)
    assert limiter.room() < before


def test_one_wave_of_429_lowers_the_limit_once() -> None:
    limiter = RateLimiter(64)
    load(limiter, 3000, lambda n: 0.2)
    before = limiter.limit
    for _ in range(20):
        limiter.busy(0.5)
    assert limiter.limit == pytest.approx(before * rate_limit.CUT)
    assert 0.4 < limiter.until - time.monotonic() <= 0.5


def test_the_embedded_engine_keeps_its_slots() -> None:
    limiter = RateLimiter(6, adapts=False)
    load(limiter, 500, lambda n: 0.1)
    limiter.busy(None)
    assert limiter.room() == 6


def test_processes_at_one_endpoint_share_what_it_takes() -> None:
    limiter = RateLimiter(64)
    load(limiter, 3000, lambda n: 0.2)
    limiter.share = 2
    assert limiter.room() == 32
    limiter.share = 1000
    assert limiter.room() == 1


def test_a_pace_lets_a_burst_through_and_then_spaces() -> None:
    pace = Pace(60)
    for _ in range(int(rate_limit.BURST_SECONDS)):
        assert pace.delay(100.0) == 0
        pace.take(1, 1, 100.0)
    pace.take(1, 1, 100.0)
    assert pace.delay(100.0) == pytest.approx(1.0)
    assert pace.delay(101.0) == 0


def test_two_processes_halve_a_pace() -> None:
    pace = Pace(60)
    pace.take(10, 2, 0.0)
    assert pace.delay(0.0) == pytest.approx(20 - rate_limit.BURST_SECONDS)


def test_tokens_are_paced_as_requests_are() -> None:
    async def enter() -> float:
        limiter = RateLimiter(8, tpm=60_000)
        began = time.monotonic()
        for _ in range(5):
            await limiter.enter(1000)
        return time.monotonic() - began

    assert asyncio.run(enter()) >= 5 - 1 - rate_limit.BURST_SECONDS - 0.1


def test_a_header_that_says_nothing_is_left_is_waited_for() -> None:
    limiter = RateLimiter(8)
    limiter.heed({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "9s"}, 100)
    assert limiter.until == 0
    limiter.heed({"x-ratelimit-remaining-tokens": "99", "x-ratelimit-reset-tokens": "250ms"}, 100)
    assert 0.2 < limiter.until - time.monotonic() <= 0.25


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m30.5s", 90.5), ("250ms", 0.25), ("2h", 7200), ("3", 3), ("soon", None), (None, None)],
)
def test_durations_as_providers_write_them(text: str | None, seconds: float | None) -> None:
    assert rate_limit.seconds(text) == seconds


def test_retry_after_is_seconds_milliseconds_or_a_date() -> None:
    assert rate_limit.retry_after({"Retry-After": "7"}) == 7
    assert rate_limit.retry_after({"retry-after-ms": "1500", "Retry-After": "7"}) == 1.5
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert rate_limit.retry_after({"Retry-After": date}) == pytest.approx(60, abs=2)
    assert rate_limit.retry_after({"Retry-After": "whenever"}) is None
    assert rate_limit.retry_after({}) is None
