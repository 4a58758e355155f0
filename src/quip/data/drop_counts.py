"""Drop counts: how many rows a stage drops, and why."""

from __future__ import annotations

from collections import Counter


class Drops:
    """The number of dropped rows by reason, and the first example of each reason."""

    def __init__(self) -> None:
        self.counter: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self.counter[reason] += count
        self.first.setdefault(reason, example)

    def counts(self) -> dict[str, int]:
        """Counts by reason in alphabetical order, so that equal drops give equal files."""
        return dict(sorted(self.counter.items()))

    def __str__(self) -> str:
        return ", ".join(f"{reason} {n:,}" for reason, n in self.counts().items()) or "nothing"
