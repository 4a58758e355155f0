"""Votes of people on two paraphrases, written as gold pairs (records.GoldPair), one JSON line each.

The file can be appended to data/raw/gold.jsonl unchanged. `kind` is "vote". The id names the better
and the worse version. `half` follows from the sentence, so all votes on one sentence are either for
tuning or for measuring.
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
"""The largest number of open comparisons; beyond it the oldest is dropped."""


@dataclass(frozen=True)
class ShownPair:
    """A comparison as one person saw it: a sentence, two texts, and the version of each."""

    literal: str
    left: str
    right: str
    left_label: str
    right_label: str


@dataclass
class Ballot:
    """The open comparisons, and the file of the votes."""

    file: Path
    open: OrderedDict[str, ShownPair] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def show(self, shown: ShownPair) -> str:
        """Open a comparison; returns the id for one vote on it."""
        key = secrets.token_hex(8)
        with self.lock:
            self.open[key] = shown
            while len(self.open) > OPEN:
                self.open.popitem(last=False)
        return key

    def vote(self, key: str, choice: Choice) -> tuple[ShownPair, bool] | None:
        """Take one vote; returns the comparison and whether a pair was written.

        "neither" and two equal texts give no pair. None when no such comparison is open.
        """
        with self.lock:
            shown = self.open.pop(key, None)
        if shown is None:
            return None
        pair = gold_pair(key, shown, choice)
        if pair:
            append(self.file, pair)
        return shown, pair is not None


def gold_pair(key: str, shown: ShownPair, choice: Choice) -> GoldPair | None:
    """The gold pair of one vote; None for "neither" and for equal texts."""
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
    """Append one line under a lock, so that several servers can write to the same file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.state("votes.lock")), file.open("a", encoding="utf-8") as handle:
        handle.write(pair.model_dump_json() + "\n")
        handle.flush()
        os.fsync(handle.fileno())
