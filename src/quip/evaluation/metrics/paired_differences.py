"""Paired differences between two arms judged against the same teacher on the same inputs.

Each input gives one number, the points of the arm minus those of the base (1 for a win, 1/2 for a
tie, 0 for a loss), so that an input which is hard for both favours neither. The interval resamples
inputs; the sign test counts the inputs on which the arm did better among those where the two
differ; Holm's correction accounts for the number of arms compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from quip.evaluation.metrics import length_control
from quip.evaluation.metrics.bootstrap import bootstrap_interval
from quip.evaluation.metrics.win_tie_rate import POWER, JudgedInput, points
from quip.runtime.errors import DataError

BASE = "sft"


def base_arm(arms: Sequence[str]) -> str:
    """The arm to beat: `sft`, or the first arm when `sft` is not compared."""
    return BASE if BASE in arms else arms[0]


def paired_difference(
    arm: Sequence[JudgedInput],
    base: Sequence[JudgedInput],
    tie_margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The difference in score of `arm` and `base` over the `n` inputs read for both, in [-1, 1].

    ci95: percentile bootstrap over inputs; at_length and its interval: the difference of the two
    scores at equal length (`length_control.difference_at_length`); more, equal, less: inputs on
    which the arm got more, as many, fewer points; p: of the sign test; detectable: the difference
    that is detected four times in five. Raises DataError when no input was read for both.
    """
    others = {row.input: row for row in base if row.preference is not None}
    both = [
        (row, others[row.input])
        for row in arm
        if row.preference is not None and row.input in others
    ]
    if not both:
        raise DataError("no input has a readable verdict for both arms.")
    gaps = [points(one, tie_margin) - points(other, tie_margin) for one, other in both]
    scored, base_scored = (
        [(points(pair[side], tie_margin), pair[side].length_ratio) for pair in both]
        for side in (0, 1)
    )
    at_length, length_ci = length_control.difference_at_length(scored, base_scored, seed)
    signs = Counter(int(np.sign(value)) for value in gaps)
    return {
        "difference": float(np.mean(gaps)),
        "ci95": bootstrap_interval(gaps, resamples, seed),
        "at_length": at_length,
        "at_length_ci95": length_ci,
        "more": signs[1],
        "equal": signs[0],
        "less": signs[-1],
        "p": sign_test(signs[1], signs[-1]),
        "detectable": detectable_difference(gaps),
        "n": len(both),
    }


def detectable_difference(gaps: Sequence[float]) -> float:
    """POWER standard errors of the difference, at most 1; when all differences are equal, with the
    largest variance they could have."""
    spread = float(np.var(gaps)) or 1.0
    return float(min(1.0, POWER * (spread / len(gaps)) ** 0.5))


def sign_test(more: int, less: int) -> float:
    """Two-sided p of `more` successes in more + less tosses of a fair coin; 1 without tosses."""
    return float(binomtest(more, more + less).pvalue) if more + less else 1.0


def holm_correction(ps: Mapping[str, float]) -> dict[str, float]:
    """{name: p corrected by Holm's method (1979)}. Claiming every difference with a corrected p
    below a level keeps the family-wise error at most at that level."""
    if not ps:
        return {}
    from statsmodels.stats.multitest import multipletests

    corrected = multipletests(list(ps.values()), method="holm")[1]
    return {name: float(p) for name, p in zip(ps, corrected, strict=True)}
