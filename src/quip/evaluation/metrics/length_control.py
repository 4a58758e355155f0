"""Length control: the score predicted for texts of equal length. Pure.

After length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression of
the verdict on the difference in length, evaluated at no difference. It removes the judge's length
bias from the score, and also any real gain that comes from length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

RESAMPLES = 1000
MAX_NUMBERS = 2**18
"""Largest number of weights in memory at once, unless one resample has more."""
STEPS = 25
RIDGE = 1.0
"""Ridge penalty on the slope, which inputs of equal length hardly determine."""
MIN_RATIO = 0.1
"""Lower bound of the length ratio; an empty text has ratio 0."""
MAX_LOG_ODDS = 8.0
"""Bound on the log-odds, reached where the score is 0 or 1."""
Row = tuple[float, float]
"""(points, length ratio) of one input."""


def score_at_length(
    points: Sequence[float], ratios: Sequence[float], seed: int = 0
) -> tuple[float, list[float]]:
    """The score at equal length, and its 95 % percentile interval by bootstrap over inputs.

    `points` (n,) are 1 for a win, 1/2 for a tie, 0 for a loss; `ratios` (n,) are words(a) /
    words(b). With all ratios equal it is the plain score.
    """
    rows = sorted(zip(points, ratios, strict=True))  # the order of the inputs plays no part
    return value_and_interval(
        np.concatenate(
            [scores_at_length(rows, weights) for weights in bootstrap_weights(len(rows), seed)]
        )
    )


def difference_at_length(
    one: Sequence[Row], other: Sequence[Row], seed: int = 0
) -> tuple[float, list[float]]:
    """`score_at_length` of `one` minus that of `other`, and its 95 % interval. Both hold (points,
    ratio) of the same inputs in the same order; the bootstrap draws each input for both."""
    pairs = sorted(zip(one, other, strict=True))
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return value_and_interval(
        np.concatenate(
            [
                scores_at_length(first, weights) - scores_at_length(second, weights)
                for weights in bootstrap_weights(len(pairs), seed)
            ]
        )
    )


def bootstrap_weights(n: int, seed: int) -> Iterator[np.ndarray]:
    """Weights of the n inputs in each bootstrap resample: 1 + RESAMPLES rows of n, the first all
    ones. Yields parts of at most MAX_NUMBERS weights, so that memory does not grow with n."""
    random = np.random.default_rng(seed)
    part = max(1, MAX_NUMBERS // n)
    for start in range(0, RESAMPLES, part):
        size = min(part, RESAMPLES - start)
        drawn = random.multinomial(n, np.full(n, 1 / n), size=size)
        yield drawn.astype(float) if start else np.vstack([np.ones(n), drawn])


def value_and_interval(values: np.ndarray) -> tuple[float, list[float]]:
    """The first value, and the 95 % percentile interval of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(values[0]), [float(low), float(high)]


def scores_at_length(rows: Sequence[Row], weights: np.ndarray) -> np.ndarray:
    """The score at equal length, (r,), for each row of `weights` (r, n). The regressor is
    tanh(log ratio / its standard deviation): the paper's equation 3 with log ratios for
    differences."""
    y = np.array([point for point, _ in rows], dtype=float)
    logs = np.log(np.maximum([ratio for _, ratio in rows], MIN_RATIO))
    spread = float(np.sqrt((logs**2).mean()))
    return fit_scores(y, np.tanh(logs / spread) if spread > 0 else np.zeros_like(logs), weights)


def fit_scores(y: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The predicted score at x = 0, (r,), of one logistic regression per row of `weights` (r, n),
    fitted by Newton's method."""
    level, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(level[:, None] + slope[:, None] * x, -30, 30)))
        left, curve = weights * (y - p), weights * p * (1 - p)
        g0, g1 = left.sum(1), left @ x - RIDGE * slope
        h00, h01, h11 = curve.sum(1) + 1e-9, curve @ x, curve @ x**2 + RIDGE
        size = h00 * h11 - h01**2
        level = np.clip(level + (h11 * g0 - h01 * g1) / size, -MAX_LOG_ODDS, MAX_LOG_ODDS)
        slope = np.clip(slope + (h00 * g1 - h01 * g0) / size, -MAX_LOG_ODDS, MAX_LOG_ODDS)
    return 1 / (1 + np.exp(-level))
