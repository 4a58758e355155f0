"""Percentile bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def mean_interval(values: Sequence[float], resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean of `values`, one per input."""
    numbers = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(numbers), (resamples, len(numbers)))
    low, high = np.percentile(numbers[draws].mean(axis=1), [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


def clustered_interval(groups: Sequence[Sequence[float]], resamples: int, seed: int) -> list[float]:
    """95 % percentile cluster bootstrap interval of the mean of all values; draws whole groups."""
    sums = np.array([sum(group) for group in groups])
    sizes = np.array([len(group) for group in groups])
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(groups), len(groups))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


LEVEL = 0.95


def percentile_interval(values: np.ndarray, divisor: int) -> list[float]:
    """[low, high] of the middle 95 % of `values`, shape (resamples,), each divided by `divisor`."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return [float(low) / divisor, float(high) / divisor]


def bootstrap_interval(values: Sequence[float], resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean of `values`, one per input, at least one.

    Draws the counts of the distinct values, which are few, as `win_tie_rate.intervals` does."""
    different, counts = np.unique(values, return_counts=True)
    n = len(values)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    return percentile_interval(drawn @ different, n)


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; 0.0 of no values, so that no metric is NaN."""
    found = list(values)
    return float(sum(found)) / len(found) if found else 0.0
