"""Inter-rater agreement: Cohen's kappa and Krippendorff's alpha, with intervals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np


def cohens_kappa(
    one: Sequence[str], other: Sequence[str], resamples: int, seed: int
) -> dict[str, Any]:
    """Cohen's kappa of two judges' outcomes (win, tie, loss) on the same comparisons, with a
    percentile bootstrap interval over comparisons, and the share of equal outcomes.

    kappa = (agreement - agreement by chance) / (1 - agreement by chance) (Cohen 1960); 0 where
    the agreement by chance is 1.
    """
    names = sorted({*one, *other})
    a, b = (np.array([names.index(value) for value in found]) for found in (one, other))
    cells = a * len(names) + b
    size, n = len(names) ** 2, len(a)
    counts = np.bincount(cells, minlength=size)
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    values = kappas(np.vstack([counts, drawn]).reshape(-1, len(names), len(names)) / n)
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return {
        "kappa": round(float(values[0]), 4),
        "ci95": [round(float(low), 4), round(float(high), 4)],
        "same": round(float((a == b).mean()), 4),
        "n": n,
    }


def kappas(shares: np.ndarray) -> np.ndarray:
    """Cohen's kappa, (r,), of each table of joint shares (r, k, k)."""
    same = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(2) * shares.sum(1)).sum(1)
    return np.where(chance < 1, (same - chance) / np.maximum(1 - chance, 1e-12), 0.0)


Level = Literal["nominal", "ordinal"]


def krippendorff_alpha(values: Sequence[Sequence[int | None]], level: Level) -> float | None:
    """Krippendorff's alpha of `values`: one row per unit, with one category (0, 1, 2, ...) per
    rater, None where a rater gave none.

    1 - observed disagreement / disagreement expected by chance (Krippendorff 2011, "Computing
    Krippendorff's Alpha-Reliability", section C); units with fewer than two values are left out.
    None where no disagreement is expected by chance: nothing to pair, or only one category.
    """
    return alphas_of_units(coincidence_matrices(values)[None], level)[0]


def alpha_interval(
    values: Sequence[Sequence[int | None]], level: Level, resamples: int, seed: int
) -> list[float] | None:
    """95 % percentile bootstrap interval of alpha over units; None where alpha is None."""
    units = coincidence_matrices(values)
    n = len(units)
    if krippendorff_alpha(values, level) is None:
        return None
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = np.tensordot(weights, units, axes=1)[:, None]
    found = [value for value in alphas_of_units(drawn, level) if value is not None]
    low, high = np.percentile(found, [2.5, 97.5])
    return [float(low), float(high)]


def coincidence_matrices(values: Sequence[Sequence[int | None]]) -> np.ndarray:
    """The coincidence matrix of each unit, (units, k, k): every ordered pair of its m values by
    different raters counts 1 / (m - 1)."""
    size = 1 + max((one for row in values for one in row if one is not None), default=0)
    units = np.zeros((len(values), size, size))
    for unit, row in zip(units, values, strict=True):
        counts = np.bincount([one for one in row if one is not None], minlength=size)
        if counts.sum() > 1:
            unit += (np.outer(counts, counts) - np.diag(counts)) / (counts.sum() - 1)
    return units


def alphas_of_units(units: np.ndarray, level: Level) -> list[float | None]:
    """Alpha of each resample: `units` (r, units, k, k) holds its coincidence matrices."""
    found: list[float | None] = []
    for pairs in units.sum(1):
        counts = pairs.sum(0)
        distances = squared_distances(counts, level)
        observed = (pairs * distances).sum()
        expected = (np.outer(counts, counts) * distances).sum() / max(counts.sum() - 1, 1)
        found.append(float(1 - observed / expected) if expected > 0 else None)
    return found


def squared_distances(counts: np.ndarray, level: Level) -> np.ndarray:
    """The squared difference of every two categories, (k, k). Ordinal: the squared number of values
    between the two, each end counted half."""
    if level == "nominal":
        return 1 - np.eye(len(counts))
    place = np.cumsum(counts) - counts / 2
    return np.asarray((place[:, None] - place[None, :]) ** 2)
