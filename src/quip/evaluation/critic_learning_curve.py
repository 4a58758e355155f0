"""How a learned critic grows with the number of votes it learns from: `quip grow`.

For each size and seed that many pairs are drawn from the files (a larger draw of one seed holds the
smaller ones), a critic is grown from them by the recipe of params `reward`, and its agreement with
people is measured on pairs it never saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from quip.data.graded_pairs import GradedPair, assign_halves, evaluation_pairs, read, tuning_pairs
from quip.evaluation.metrics.bootstrap import clustered
from quip.runtime.errors import DataError, ParamsError
from quip.training import reward
from quip.training.reward import RewardParams

SIZES = (50, 200, 1000)
RESAMPLES = 10_000


class Data(NamedTuple):
    """Pairs to learn from and pairs to measure on."""

    learn: list[GradedPair]
    measure: list[GradedPair]


class Point(NamedTuple):
    """The critics of one size: the agreement of each with people, and an interval of their mean
    that resamples the literals measured on."""

    size: int
    agreements: list[float]
    low: float
    high: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.agreements))


def gather(files: Sequence[Path], measure: Path | None) -> Data:
    """What to learn from and what to measure on. Without a file to measure on, the held-out halves
    of `files`: the file's own, or those that follow from the literal. Raises DataError."""
    pairs = [pair for file in files for pair in read(file, file.stem).pairs]
    if measure is None:
        pairs = list(assign_halves(pairs))
    data = Data(tuning_pairs(pairs), evaluation_pairs(read(measure).pairs if measure else pairs))
    if not data.learn or not data.measure:
        empty = "to learn from" if data.measure else "to measure on"
        raise DataError(f"grow: no pair is left {empty}; look at the halves (`half`).")
    shared = {p.literal for p in data.learn} & {p.literal for p in data.measure} - {""}
    if shared:
        raise DataError(
            f"grow: {len(shared)} literals stand among what is learned from and what is measured "
            f"on, the first: {min(shared)!r}. Take them out of one."
        )
    return data


def sizes_of(wanted: str | None, there: int) -> list[int]:
    """The sizes that a comma-separated list names ("all" for all there are); without one, those of
    SIZES that can be had, or all. Raises ParamsError."""
    if wanted is None:
        return [size for size in SIZES if size <= there] or [there]
    found = []
    for part in wanted.split(","):
        size = there if part.strip() == "all" else int(part) if part.strip().isdigit() else 0
        if not 1 <= size <= there:
            raise ParamsError(f"--sizes: '{part}' is no number from 1 to {there} and not 'all'.")
        found.append(size)
    return sorted(set(found))


def points(data: Data, sizes: Sequence[int], seeds: int, params: RewardParams) -> Iterator[Point]:
    """Grow and measure the critics of each size, smallest first."""
    for size in sizes:
        found = np.array([scores(data, size, seed, params) for seed in range(1, seeds + 1)])
        groups: dict[str, list[float]] = {}
        for pair, score in zip(data.measure, found.mean(axis=0), strict=True):
            groups.setdefault(pair.literal or pair.id, []).append(float(score))
        low, high = clustered(list(groups.values()), RESAMPLES, seed=1)
        yield Point(size, [float(value) for value in found.mean(axis=1)], low, high)


def scores(data: Data, size: int, seed: int, params: RewardParams) -> list[float]:
    """Of the critic grown from `size` pairs: 1 for each pair in which it agrees with people."""
    drawn = Random(seed).sample(data.learn, len(data.learn))[:size]
    recipe = params.model_copy(update={"seed": seed})
    model = reward.train(drawn, recipe, f"{size} votes, seed {seed}")
    return reward.pair_accuracies(model, data.measure)


HEADER = (
    "| votes | agreement with people | 95 % interval | each critic |\n"
    "|------:|----------------------:|---------------|-------------|"
)


def row(point: Point) -> str:
    """A row of the table under HEADER."""
    each = ", ".join(f"{value:.3f}" for value in point.agreements)
    return f"| {point.size:,} | {point.mean:.3f} | {point.low:.3f} to {point.high:.3f} | {each} |"


def said(data: Data, params: RewardParams) -> str:
    """What the table is about, in one line."""
    literals = len({pair.literal or pair.id for pair in data.measure})
    return (
        f"grow: from {len(data.learn):,} pairs; measured on {len(data.measure):,} untied pairs of "
        f"{literals:,} literals; {params.base}, {params.epochs} epochs"
    )
