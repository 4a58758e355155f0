"""Learning curve of the learned critic: agreement with people by number of votes (`quip grow`).

For each size and seed, that many pairs are drawn from the files; a larger draw with the same seed
contains the smaller ones. A critic is trained on them with the settings of params `reward`, and its
agreement with people is measured on pairs it was not trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from quip.data.graded_pairs import GradedPair, assign_halves, evaluation_pairs, read, tuning_pairs
from quip.evaluation.metrics.bootstrap import clustered_interval
from quip.runtime.errors import DataError, ParamsError
from quip.training import reward
from quip.training.reward import RewardParams

SIZES = (50, 200, 1000)
RESAMPLES = 10_000


class CurvePairs(NamedTuple):
    """Pairs to train on (`learn`) and pairs to measure on (`measure`)."""

    learn: list[GradedPair]
    measure: list[GradedPair]


class CurvePoint(NamedTuple):
    """The critics of one size: the agreement of each with people, and the 95 % interval of their
    mean, a bootstrap over the literals measured on."""

    size: int
    agreements: list[float]
    low: float
    high: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.agreements))


def read_pairs(files: Sequence[Path], measure: Path | None) -> CurvePairs:
    """Read the pairs to train on and to measure on.

    Without a file to measure on, the held-out halves of `files` are used: those the file names, or
    else those derived from the literal. Raises DataError when one of the two is empty or when both
    contain the same literal."""
    pairs = [pair for file in files for pair in read(file, file.stem).pairs]
    if measure is None:
        pairs = list(assign_halves(pairs))
    found = evaluation_pairs(read(measure).pairs if measure else pairs)
    data = CurvePairs(tuning_pairs(pairs), found)
    if not data.learn or not data.measure:
        empty = "to learn from" if data.measure else "to measure on"
        raise DataError(f"grow: no pair is left {empty}. Check the field `half` of the pairs.")
    shared = {p.literal for p in data.learn} & {p.literal for p in data.measure} - {""}
    if shared:
        raise DataError(
            f"grow: {len(shared)} literals are both among the pairs to learn from and among those "
            f"to measure on, the first: {min(shared)!r}. Remove them from one of the two."
        )
    return data


def parse_sizes(wanted: str | None, available: int) -> list[int]:
    """The sizes in a comma-separated list ("all" is `available`); without a list, those of SIZES up
    to `available`, or `available` alone. Raises ParamsError for any other text."""
    if wanted is None:
        return [size for size in SIZES if size <= available] or [available]
    found = []
    for part in wanted.split(","):
        size = available if part.strip() == "all" else int(part) if part.strip().isdigit() else 0
        if not 1 <= size <= available:
            raise ParamsError(
                f"--sizes: '{part}' is neither a number from 1 to {available} nor 'all'."
            )
        found.append(size)
    return sorted(set(found))


def learning_curve(
    data: CurvePairs, sizes: Sequence[int], seeds: int, params: RewardParams
) -> Iterator[CurvePoint]:
    """Train and measure the critics of each size, smallest first."""
    for size in sizes:
        found = np.array(
            [pair_agreements(data, size, seed, params) for seed in range(1, seeds + 1)]
        )
        groups: dict[str, list[float]] = {}
        for pair, score in zip(data.measure, found.mean(axis=0), strict=True):
            groups.setdefault(pair.literal or pair.id, []).append(float(score))
        low, high = clustered_interval(list(groups.values()), RESAMPLES, seed=1)
        yield CurvePoint(size, [float(value) for value in found.mean(axis=1)], low, high)


def pair_agreements(data: CurvePairs, size: int, seed: int, params: RewardParams) -> list[float]:
    """Train a critic on `size` pairs; 1 for each measured pair where it agrees with people, else
    0."""
    drawn = Random(seed).sample(data.learn, len(data.learn))[:size]
    recipe = params.model_copy(update={"seed": seed})
    model = reward.train(drawn, recipe, f"{size} votes, seed {seed}")
    return reward.pair_accuracies(model, data.measure)


HEADER = (
    "| votes | agreement with people | 95 % interval | each critic |\n"
    "|------:|----------------------:|---------------|-------------|"
)


def table_row(point: CurvePoint) -> str:
    """One row of the table under HEADER."""
    each = ", ".join(f"{value:.3f}" for value in point.agreements)
    return f"| {point.size:,} | {point.mean:.3f} | {point.low:.3f} to {point.high:.3f} | {each} |"


def summary_line(data: CurvePairs, params: RewardParams) -> str:
    """One line on the data and settings behind the table."""
    literals = len({pair.literal or pair.id for pair in data.measure})
    return (
        f"grow: from {len(data.learn):,} pairs; measured on {len(data.measure):,} untied pairs of "
        f"{literals:,} literals; {params.base}, {params.epochs} epochs"
    )
