"""Votes of people on two paraphrases, kept as gold pairs (records.GoldPair), one JSON line each.

The file can be appended to data/raw/gold.jsonl as it is. `kind` is "vote"; the id says which
version won over which; `half` follows from the sentence, so that all votes on one sentence serve
either for tuning or for measuring, never both.
"""

from __future__ import annotations

import os
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Literal

from filelock import FileLock

from quip.core.records import GoldPair
from quip.core.text import digest
from quip.runtime import paths

Choice = Literal["left", "right", "neither"]
OPEN = 10_000
"""Comparisons that are remembered until somebody votes."""


@dataclass(frozen=True)
class Shown:
    """What one person was shown: a sentence and two texts, and which version wrote which."""

    literal: str
    left: str
    right: str
    left_label: str
    right_label: str


@dataclass
class Ballot:
    """The comparisons that are open, and the file into which votes go."""

    file: Path
    open: OrderedDict[str, Shown] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def show(self, shown: Shown) -> str:
        """Remember a comparison; returns the id with which to vote on it, once."""
        key = secrets.token_hex(8)
        with self.lock:
            self.open[key] = shown
            while len(self.open) > OPEN:
                self.open.popitem(last=False)
        return key

    def vote(self, key: str, choice: Choice) -> tuple[Shown, bool] | None:
        """The comparison voted on and whether a pair was written ("neither" and two equal texts
        give none); None when no such comparison is open."""
        with self.lock:
            shown = self.open.pop(key, None)
        if shown is None:
            return None
        pair = gold_pair(key, shown, choice)
        if pair:
            append(self.file, pair)
        return shown, pair is not None


def gold_pair(key: str, shown: Shown, choice: Choice) -> GoldPair | None:
    if choice == "neither" or shown.left == shown.right:
        return None
    sides = [(shown.left, shown.left_label), (shown.right, shown.right_label)]
    (better, winner), (worse, loser) = sides if choice == "left" else reversed(sides)
    return GoldPair(
        id=f"vote-{winner}-over-{loser}-{key}",
        kind="vote",
        half="tune" if int(digest(shown.literal)[:8], 16) % 2 else "held_out",
        literal=shown.literal,
        better=better,
        worse=worse,
    )


def append(file: Path, pair: GoldPair) -> None:
    """Add one line, whole, also when several servers write to the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.state("votes.lock")), file.open("a", encoding="utf-8") as handle:
        handle.write(pair.model_dump_json() + "\n")
        handle.flush()
        os.fsync(handle.fileno())
