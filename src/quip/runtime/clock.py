"""What the seconds of this process went into, part by part; `quip times` shows it.

start        CPU seconds until the stage's work begins, for a stage with a student until that is
             loaded; and until the embedded engine answers
reading,     calls of the embedded engine, divided by its own count of prompt reading and generation
generation
calls        calls of other endpoints
training     a training run, from its first step's preparation to the saved student
mlflow       whatever talks to the tracking store

Parts do not overlap: a part inside another (MLflow in a training) is taken out of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

spent: defaultdict[str, float] = defaultdict(float)
stack: list[str] = []
since = 0.0
loaded = False


def started(by_load: bool = False) -> None:
    """The start ends here; for the last time at the first load of a student."""
    global loaded
    if not loaded:
        spent["start"] = time.process_time()
    loaded = loaded or by_load


@contextmanager
def within(part: str) -> Iterator[None]:
    """The seconds inside are `part`'s, less those of a part inside it."""
    turn()
    stack.append(part)
    try:
        yield
    finally:
        turn()
        stack.pop()


def turn() -> None:
    global since
    now = time.monotonic()
    if stack:
        spent[stack[-1]] += now - since
    since = now


def divide(part: str, shares: Mapping[str, float]) -> None:
    """Give what `part` holds to others, in proportion to their `shares`."""
    seconds, total = spent.pop(part, 0.0), sum(shares.values())
    for name, share in shares.items():
        spent[name] += seconds * share / total


def parts() -> dict[str, float]:
    return {name: round(seconds, 2) for name, seconds in sorted(spent.items()) if seconds >= 0.005}
