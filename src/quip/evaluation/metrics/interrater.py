"""How far several people agree: Krippendorff's alpha, with an interval. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


def between(one: Sequence[str], other: Sequence[str], resamples: int, seed: int) -> dict[str, Any]:
    """Cohen's kappa of two judges' outcomes (win, tie, loss) on the same comparisons, with a
    percentile bootstrap interval over comparisons, and the share on which they agree.

    kappa = (agreement - agreement by chance) / (1 - agreement by chance) (Cohen 1960); 0 where
    chance alone would agree on everything.
    """
    names = sorted({*one, *other})
    a, b = (np.array([names.index(value) for value in found]) for found in (one, other))
    table = a * len(names) + b
    size, n = len(names) ** 2, len(a)
    whole = np.bincount(table, minlength=size)
    drawn = np.random.default_rng(seed).multinomial(n, whole / n, size=resamples)
    values = kappas(np.vstack([whole, drawn]).reshape(-1, len(names), len(names)) / n)
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {
        "kappa": round(float(values[0]), 4),
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "same": round(float((a == b).mean()), 4),
        "n": n,
    }


def kappas(shares: np.ndarray) -> np.ndarray:
    """Cohen's kappa of each table of joint shares (r, k, k)."""
    same = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(2) * shares.sum(1)).sum(1)
    return np.where(chance < 1, (same - chance) / np.maximum(1 - chance, 1e-12), 0.0)


Level = Literal["nominal", "ordinal"]


def alpha(values: Sequence[Sequence[int | None]], level: Level) -> float | None:
    """Krippendorff's alpha of `values`, one row a unit and in it one category (0, 1, 2, ...) a
    rater, None where there is none.

    1 - observed disagreement / disagreement expected by chance (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability", section C); units with fewer than two values are left out.
    None where chance alone could not disagree: nothing to pair, or one category only.
    """
    return of_units(coincidences(values)[None], level)[0]


def interval(
    values: Sequence[Sequence[int | None]], level: Level, resamples: int, seed: int
) -> list[float] | None:
    """95 % percentile bootstrap interval of `alpha` over units; None where alpha is None."""
    units = coincidences(values)
    n = len(units)
    if alpha(values, level) is None:
        return None
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = np.tensordot(weights, units, axes=1)[:, None]
    found = [one for one in of_units(drawn, level) if one is not None]
    low, high = np.percentile(found, [2.5, 97.5])
    return [float(low), float(high)]


def coincidences(values: Sequence[Sequence[int | None]]) -> np.ndarray:
    """The coincidence matrix of each unit, (units, k, k): every ordered pair of its m values, of
    different raters, counted 1 / (m - 1)."""
    size = 1 + max((one for row in values for one in row if one is not None), default=0)
    units = np.zeros((len(values), size, size))
    for unit, row in zip(units, values, strict=True):
        counts = np.bincount([one for one in row if one is not None], minlength=size)
        if counts.sum() > 1:
            unit += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    return units


def of_units(units: np.ndarray, level: Level) -> list[float | None]:
    """Alpha of the sum of each row's coincidence matrices, (r, units, k, k)."""
    found: list[float | None] = []
    for pairs in units.sum(1):
        counts = pairs.sum(0)
        apart = distance(counts, level)
        observed = (pairs * apart).sum()
        expected = (np.outer(counts, counts) * apart).sum() / max(counts.sum() - 1, 1)
        found.append(float(1 - observed / expected) if expected > 0 else None)
    return found


def distance(counts: np.ndarray, level: Level) -> np.ndarray:
    """The squared difference of every two categories, (k, k). Ordinal: the square of the number of
    values from one to the other, each end counted half."""
    if level == "nominal":
        return 1 - np.eye(len(counts))
    place = np.cumsum(counts) - counts / 2
    return np.asarray((place[:, None] - place[None, :]) ** 2)
