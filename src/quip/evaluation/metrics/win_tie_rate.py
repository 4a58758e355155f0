"""Win-tie rate, score and their intervals, from debiased preferences. Pure.

The paper reports WTR = win + tie (section 5), which rises with indifference: a judge that ties
everything gives every student 100 %. Claims therefore rest on score = win + tie/2, which such a
judge leaves at one half; WTR is kept for comparison with the paper. docs/evaluation.md defines
every number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from quip.core.records import Outcome
from quip.evaluation.metrics import length_control
from quip.evaluation.metrics.bootstrap import mean, percentile_interval
from quip.evaluation.metrics.tie_rule import outcome
from quip.runtime.errors import DataError

OUTCOMES: tuple[Outcome, ...] = ("win", "tie", "loss")
POWER = 2.8
"""Standard errors at which a two-sided 5 % test has a power of 80 % (1.96 + 0.84)."""


class JudgedInput(NamedTuple):
    """One input on which a judge compared text `a` with text `b`.

    `preference` is the debiased preference for a over b in [0, 1], None when it could not be read;
    `flipped` says whether the judge's choice changed with the order; `length_ratio` is
    words(a) / words(b); `agreed` is the outcome by `tie_rule.both_orders`.
    """

    input: str
    preference: float | None
    flipped: bool | None
    length_ratio: float
    agreed: Outcome = "tie"


class Counts(NamedTuple):
    """How many inputs a won, tied and lost."""

    win: int
    tie: int
    loss: int


def summarise(
    comparisons: Sequence[JudgedInput],
    tie_margin: float,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The summary of one arm, split and judge: fractions between 0 and 1, never NaN.

    win + tie + loss = 1 over the `n` inputs whose verdict could be read; wtr = win + tie;
    score = win + tie/2; ci95 and score_ci95 are percentile bootstrap intervals of these two over
    inputs; unparsed = unread / asked; flip_rate = flipped / read; length_ratio is the mean of
    words(a) / words(b) over the read inputs. score_at_length and its interval:
    `length_control.score_at_length`; detectable: the distance of a score from one half that is
    detected four times in five; both_orders: win, tie, loss, wtr and score when the two orders must
    agree, a diagnostic.

    Raises DataError when there is no comparison, none could be read, or an input occurs twice
    (it would count as two independent ones).
    """
    refuse_repeated_inputs(comparisons)
    read = [row for row in comparisons if row.preference is not None]
    if not read:
        raise DataError(unreadable_message(len(comparisons)))
    counts = count_outcomes(read, tie_margin)
    wtr_ci, score_ci = intervals(counts, resamples, seed)
    at_length, length_ci = length_control.score_at_length(
        [points(row, tie_margin) for row in read], [row.length_ratio for row in read], seed
    )
    return {
        "wtr": wtr(counts),
        "ci95": wtr_ci,
        "score": score(counts),
        "score_ci95": score_ci,
        "score_at_length": at_length,
        "score_at_length_ci95": length_ci,
        "detectable": detectable_score(counts),
        "win": counts.win / len(read),
        "tie": counts.tie / len(read),
        "loss": counts.loss / len(read),
        "n": len(read),
        "flip_rate": mean(row.flipped for row in read if row.flipped is not None),
        "length_ratio": mean(row.length_ratio for row in read),
        "unparsed": (len(comparisons) - len(read)) / len(comparisons),
        "both_orders": outcome_shares(
            Counts(*(Counter(r.agreed for r in read)[o] for o in OUTCOMES))
        ),
    }


def outcome_shares(counts: Counts) -> dict[str, float]:
    """Shares of win, tie and loss, with wtr and score."""
    n = sum(counts)
    found = {name: value / n for name, value in counts._asdict().items()}
    return {**found, "wtr": wtr(counts), "score": score(counts)}


def points(row: JudgedInput, tie_margin: float) -> float:
    """1 for a win of a, 1/2 for a tie, 0 for a loss."""
    assert row.preference is not None
    return {"win": 1.0, "tie": 0.5, "loss": 0.0}[outcome(row.preference, tie_margin)]


def detectable_score(counts: Counts) -> float:
    """POWER standard errors of the score, at most 1/2; when all verdicts are equal, with the
    largest variance they could have."""
    n, mean_ = sum(counts), score(counts)
    spread = (counts.win + counts.tie / 4) / n - mean_**2
    return float(min(0.5, POWER * ((spread or 0.25) / n) ** 0.5))


def count_outcomes(read: Iterable[JudgedInput], tie_margin: float) -> Counts:
    """Wins, ties and losses of a; rows without a preference are not counted."""
    tally = Counter(
        outcome(row.preference, tie_margin) for row in read if row.preference is not None
    )
    return Counts(tally["win"], tally["tie"], tally["loss"])


def wtr(counts: Counts) -> float:
    """Win-tie rate, (win + tie) / n."""
    return (counts.win + counts.tie) / sum(counts)


def score(counts: Counts) -> float:
    """(win + tie/2) / n: one half means that neither side is better."""
    return (2 * counts.win + counts.tie) / (2 * sum(counts))


def intervals(counts: Counts, resamples: int, seed: int) -> tuple[list[float], list[float]]:
    """Percentile bootstrap intervals over inputs of wtr and score, in that order.

    Drawing n inputs with replacement leaves (win, tie, loss) counts that are multinomial with the
    observed shares, so the counts are drawn directly, (resamples, 3) at once: the same bootstrap,
    independent of the order of the inputs. When every input has one outcome the interval has no
    width, which says nothing about other inputs: read it together with n.
    """
    n = sum(counts)
    drawn = np.random.default_rng(seed).multinomial(n, np.array(counts) / n, size=resamples)
    win, tie = drawn[:, 0], drawn[:, 1]
    return percentile_interval(win + tie, n), percentile_interval(2 * win + tie, 2 * n)


def refuse_repeated_inputs(comparisons: Sequence[JudgedInput]) -> None:
    if not comparisons:
        raise DataError("no comparison to summarise. Run `dvc repro judge` first.")
    name, times = Counter(row.input for row in comparisons).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"input '{name}' is judged {times} times by one judge; each input counts once."
        )


def unreadable_message(asked: int) -> str:
    return (
        f"none of {asked} verdicts could be read, so there is nothing to count. Look at the raw "
        "answers in data/verdicts and at the judge's prompt."
    )
