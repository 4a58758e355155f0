"""What a score would be if both texts were equally long. Pure.

After length-controlled AlpacaEval (Dubois et al. 2024, arXiv 2404.04475): a logistic regression of
the verdict on the difference in length, read off at no difference. It takes the judge's taste for
length out of the score, and with it whatever is really better because it is longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

RESAMPLES = 1000
NUMBERS = 2**18
"""Of an array at once, or one resample's."""
STEPS = 25
RIDGE = 1.0
"""Of the slope: inputs as long as each other say little of it."""
FLOOR = 0.1
"""The smallest length ratio that counts: an empty text has none."""
FARTHEST = 8.0
"""Log-odds at which a score of 0 or 1 is left alone."""
Row = tuple[float, float]
"""(points, length ratio) of one input."""


def controlled(
    points: Sequence[float], ratios: Sequence[float], seed: int = 0
) -> tuple[float, list[float]]:
    """The score at equal length, and its 95 % percentile interval by bootstrap over inputs.

    `points` (n,) are 1 for a win, 1/2 for a tie, 0 for a loss; `ratios` (n,) words over the other's
    words. With lengths all alike it is the plain score.
    """
    rows = sorted(zip(points, ratios, strict=True))  # the order of the inputs plays no part
    return with_interval(
        np.concatenate([scores(rows, weights) for weights in draws(len(rows), seed)])
    )


def difference(
    one: Sequence[Row], other: Sequence[Row], seed: int = 0
) -> tuple[float, list[float]]:
    """`controlled` of `one` minus that of `other`, (points, ratio) of the same inputs in the same
    order; the bootstrap draws each input for both."""
    pairs = sorted(zip(one, other, strict=True))
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return with_interval(
        np.concatenate(
            [
                scores(first, weights) - scores(second, weights)
                for weights in draws(len(pairs), seed)
            ]
        )
    )


def draws(n: int, seed: int) -> Iterator[np.ndarray]:
    """How often each input counts: 1 + RESAMPLES rows of n, once in the first row, then as drawn;
    in parts of at most NUMBERS, so that memory does not grow with n."""
    random = np.random.default_rng(seed)
    part = max(1, NUMBERS // n)
    for start in range(0, RESAMPLES, part):
        size = min(part, RESAMPLES - start)
        drawn = random.multinomial(n, np.full(n, 1 / n), size=size)
        yield drawn.astype(float) if start else np.vstack([np.ones(n), drawn])


def with_interval(values: np.ndarray) -> tuple[float, list[float]]:
    """The first value, and the middle 95 % of the others."""
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(values[0]), [float(low), float(high)]


def scores(rows: Sequence[Row], weights: np.ndarray) -> np.ndarray:
    """The score at equal length, once a row of `weights`. The regressor is tanh(log ratio / its
    standard deviation), as in the paper's equation 3 with log ratios for differences."""
    y = np.array([point for point, _ in rows], dtype=float)
    logs = np.log(np.maximum([ratio for _, ratio in rows], FLOOR))
    spread = float(np.sqrt((logs**2).mean()))
    return fit(y, np.tanh(logs / spread) if spread > 0 else np.zeros_like(logs), weights)


def fit(y: np.ndarray, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The predicted score at x = 0 of one logistic regression a row of `weights` (r, n), by
    Newton's method; (r,)."""
    level, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(level[:, None] + slope[:, None] * x, -30, 30)))
        left, curve = weights * (y - p), weights * p * (1 - p)
        g0, g1 = left.sum(1), left @ x - RIDGE * slope
        h00, h01, h11 = curve.sum(1) + 1e-9, curve @ x, curve @ x**2 + RIDGE
        size = h00 * h11 - h01**2
        level = np.clip(level + (h11 * g0 - h01 * g1) / size, -FARTHEST, FARTHEST)
        slope = np.clip(slope + (h00 * g1 - h01 * g0) / size, -FARTHEST, FARTHEST)
    return 1 / (1 + np.exp(-level))
