"""Bradley-Terry ratings: one rating per name from all comparisons. Pure.

P(i is judged better than j) = p_i / (p_i + p_j); a tie is half a win for each. The likelihood is
maximised by the MM iteration of Hunter (2004, Annals of Statistics 32, equation 3), for all
resamples at once (a library's fit would take minutes). Every pair that was compared gets one more
tie (`PRIOR`), so that a name which lost every comparison has a finite rating. Ratings are in Elo
points, 400 log10(p_i / p_anchor): 100 points are 64 % of the wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quip.evaluation.metrics.length_control import bootstrap_weights

STEPS = 2000
TOLERANCE = 1e-7
PRIOR = 0.5
"""Wins added to each side of every compared pair."""


class Match(NamedTuple):
    """One comparison: points of a (1 win, 1/2 tie, 0 loss) over b on one input."""

    input: str
    a: str
    b: str
    points: float


def ratings(verdicts: Sequence[Match], anchor: str, seed: int) -> dict[str, dict[str, Any]]:
    """{name: {"rating", "ci95", "n"}}, best first; `anchor` has rating 0, and n counts the
    comparisons of a name. The interval is a percentile bootstrap over inputs: all comparisons of an
    input are drawn together. Names without a chain of comparisons to the anchor cannot be rated and
    are left out."""
    names = connected_names(verdicts, anchor)
    verdicts = [row for row in verdicts if row.a in names and row.b in names]
    if not verdicts:
        return {}
    inputs = {name: at for at, name in enumerate(sorted({row.input for row in verdicts}))}
    place = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(inputs), len(names), len(names)))
    for row in verdicts:
        at, a, b = inputs[row.input], place[row.a], place[row.b]
        wins[at, a, b] += row.points
        wins[at, b, a] += 1 - row.points
    drawn = [
        np.einsum("rn,nij->rij", weights, wins) for weights in bootstrap_weights(len(inputs), seed)
    ]
    logs = fit_log_strengths(np.concatenate(drawn) + PRIOR * compared_pairs(wins))
    points = 400 / np.log(10) * (logs - logs[:, [place[anchor]]])
    low, high = np.quantile(points[1:], [0.025, 0.975], axis=0)
    total = wins.sum((0, 2)) + wins.sum((0, 1))
    found: dict[str, dict[str, Any]] = {
        name: {
            "rating": round(float(points[0, at]), 1),
            "ci95": [round(float(low[at]), 1), round(float(high[at]), 1)],
            "n": round(float(total[at])),
        }
        for name, at in place.items()
    }
    best = sorted(place, key=lambda name: -points[0, place[name]])
    return {name: found[name] for name in best}


def connected_names(verdicts: Sequence[Match], anchor: str) -> list[str]:
    """The anchor and every name with a chain of comparisons to it, in order of appearance."""
    found = {anchor}
    while (
        more := {name for row in verdicts if {row.a, row.b} & found for name in (row.a, row.b)}
        - found
    ):
        found |= more
    return [
        name for name in dict.fromkeys(n for r in verdicts for n in (r.a, r.b)) if name in found
    ]


def compared_pairs(wins: np.ndarray) -> np.ndarray:
    """(k, k): 1 where two names were compared on any input; `wins` is (n, k, k)."""
    return ((wins + wins.transpose(0, 2, 1)).sum(0) > 0).astype(float)


def fit_log_strengths(wins: np.ndarray) -> np.ndarray:
    """log p, (r, k), fitted to `wins` (r, k, k); wins[:, i, j] is how often i beat j."""
    strength = np.ones(wins.shape[:2])
    games, won = wins + wins.transpose(0, 2, 1), wins.sum(2)
    for _ in range(STEPS):
        old = strength
        strength = won / (games / (old[:, :, None] + old[:, None, :])).sum(2)
        strength /= np.exp(np.log(strength).mean(1, keepdims=True))
        if np.abs(np.log(strength / old)).max() < TOLERANCE:
            break
    return np.log(strength)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Kendall's tau-b of two judges' values for the same names, and its exact p. tau is None where
    it is undefined: fewer than two names, or all values of a judge equal."""
    from scipy.stats import kendalltau

    if len(set(one)) < 2 or len(set(other)) < 2:
        return {"tau": None, "p": 1.0, "n": len(one)}
    found = kendalltau(one, other)
    return {"tau": float(found.statistic), "p": float(found.pvalue), "n": len(one)}
