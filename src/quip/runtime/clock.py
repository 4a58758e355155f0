"""Process clock: the seconds of this process, by part; `quip times` shows them.

start        CPU seconds until the stage's work begins (in a stage with a student, until the student
             is loaded), and the seconds until the embedded engine answers
reading,     calls of the embedded engine, divided by its own timings of prompt reading and
generation   generation
calls        calls of other endpoints
training     a training run, from the preparation of its first step to the saved student
mlflow       all exchange with the tracking store

Parts do not overlap: the seconds of a part inside another (MLflow in a training) count for the
inner part only.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

seconds_by_part: defaultdict[str, float] = defaultdict(float)
stack: list[str] = []
last_switch = 0.0
student_loaded = False


def record_start(by_load: bool = False) -> None:
    """Record the CPU seconds until now as the start. The first load of a student is the last time
    that counts."""
    global student_loaded
    if not student_loaded:
        seconds_by_part["start"] = time.process_time()
    student_loaded = student_loaded or by_load


@contextmanager
def measure(part: str) -> Iterator[None]:
    """A context whose seconds count for `part`, without those of a part inside it."""
    credit_elapsed()
    stack.append(part)
    try:
        yield
    finally:
        credit_elapsed()
        stack.pop()


def credit_elapsed() -> None:
    """Add the seconds since the last switch to the innermost part."""
    global last_switch
    now = time.monotonic()
    if stack:
        seconds_by_part[stack[-1]] += now - last_switch
    last_switch = now


def divide(part: str, shares: Mapping[str, float]) -> None:
    """Move the seconds of `part` to other parts, in proportion to their `shares`."""
    seconds, total = seconds_by_part.pop(part, 0.0), sum(shares.values())
    for name, share in shares.items():
        seconds_by_part[name] += seconds * share / total


def parts() -> dict[str, float]:
    """The seconds by part, rounded, without parts near zero."""
    return {
        name: round(seconds, 2)
        for name, seconds in sorted(seconds_by_part.items())
        if seconds >= 0.005
    }
