"""Percentile bootstrap intervals of a mean: over inputs, or over whole groups of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

LEVEL = 0.95


def bootstrap_interval(values: Sequence[float], resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean of `values`, one per input, at least one.

    Draws the counts of the distinct values, which are few, as `win_tie_rate.intervals` does."""
    different, counts = np.unique(values, return_counts=True)
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    return percentile_interval(drawn @ different, n)


def rounded_interval(values: Sequence[float], resamples: int, seed: int) -> list[float]:
    """`bootstrap_interval` to four decimals, as it stands in metrics files."""
    return [round(bound, 4) for bound in bootstrap_interval(values, resamples, seed)]


def clustered_interval(groups: Sequence[Sequence[float]], resamples: int, seed: int) -> list[float]:
    """95 % percentile cluster bootstrap interval of the mean of all values, to four decimals; draws
    whole groups."""
    sums = np.array([sum(group) for group in groups])
    sizes = np.array([len(group) for group in groups])
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(groups), len(groups))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    return [round(bound, 4) for bound in percentile_interval(np.array(means), 1)]


def percentile_interval(values: np.ndarray, divisor: int) -> list[float]:
    """[low, high] of the middle 95 % of `values`, shape (resamples,), each divided by `divisor`."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low) / divisor, float(high) / divisor]


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; 0.0 of no values, so that no metric is NaN."""
    found = list(values)
    return float(sum(found)) / len(found) if found else 0.0
