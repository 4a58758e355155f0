"""How far a critic agrees with gold pairs, and how its choice depends on position and length.

Pure arithmetic. Definitions (the paper's table 1 leaves the biases open; these are ours):

agreement      share of readable pairs whose better text the critic prefers (preference > 1/2 of
               better over worse; exactly 1/2 counts one half)
Ag-H           agreement on the pairs that test humor: both texts say what the literal says, one is
               funnier. Kinds `plain` (funny against flat), `weaker` (clearly funnier against less
               funny), `length` (a joke against the same joke with padding)
Ag-C           agreement on the pairs that test content: the worse text does not say what the
               literal says. Kinds `off_topic` (funny about something else), `nonsense`
position bias  PB: share of readable pairs whose named choice changes with the order
length bias    LB: share of readable pairs in which the better text is the shorter one (in words)
               and the critic prefers the longer

The paper's people judged each pair for humor and for content; a gold pair has one better text, and
its kind says in what. Pairs of other kinds count in the agreement and in neither of the two.
Intervals are 95 % percentile bootstraps over pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from quip.core.records import Critique, GoldPair
from quip.critics.debiasing import Debias, calibrated_preference, order_flips
from quip.evaluation.metrics.bootstrap import mean_interval
from quip.runtime.errors import DataError

HUMOR = ("plain", "weaker", "length")
CONTENT = ("off_topic", "nonsense")
TESTS = {"ag_h": HUMOR, "ag_c": CONTENT}
"""The keys of critic.json for Ag-H and Ag-C, and the kinds of gold pairs they stand on."""


def agreement(preference: float) -> float:
    """1 when the better text is preferred, 0 when the worse, 1/2 when neither."""
    return 1.0 if preference > 0.5 else 0.0 if preference < 0.5 else 0.5


def audit_summary(
    pairs: Sequence[GoldPair],
    critiques: Sequence[Critique],
    debias: Debias,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The content of critic.json. `critiques` answer `pairs` in order, better text as `a`.

    Raises DataError when not one answer could be read.
    """
    read = [
        (p, c, v)
        for p, c in zip(pairs, critiques, strict=True)
        if (v := calibrated_preference(c, debias)) is not None
    ]
    if not read:
        raise DataError("audit: the critic gave no readable answer. Look at prompts/critic.txt.")
    shown = [score_pair(p, c, v) for p, c, v in read]
    kinds = dict.fromkeys(pair.kind for pair, _, _ in read)
    first = [
        answer.p_first > 0.5
        for _, c, _ in read
        for answer in (c.forward, c.backward)
        if answer.p_first is not None
    ]

    def measured(wanted: Sequence[str]) -> dict[str, Any]:
        return figures([one for one in shown if one.kind in wanted], resamples, seed)

    whole = measured(list(kinds))
    return {
        **{key: whole[key] for key in ("agreement", "ci95", "position_bias", "length_bias", "n")},
        "position_bias_ci95": whole["position_bias_ci95"],
        "length_bias_ci95": whole["length_bias_ci95"],
        **{name: measured(of_) for name, of_ in TESTS.items() if kinds.keys() & set(of_)},
        "first_share": mean([float(value) for value in first]),
        "unparsed": round(1 - len(read) / len(pairs), 4),
        "unparsed_pairs": len(pairs) - len(read),
        "sources": {
            s: sum(c.forward.source == s for c in critiques)
            for s in sorted({c.forward.source for c in critiques})
        },
        "by_kind": {kind: measured([kind]) for kind in kinds},
    }


class Scored(NamedTuple):
    """What one readable pair adds to the figures: each between 0 and 1."""

    kind: str
    agreement: float
    position: float
    length: float


def score_pair(pair: GoldPair, critique: Critique, preference: float) -> Scored:
    turned = float(bool(order_flips(critique.forward, critique.backward)))
    longer = float(prefers_longer(pair, preference))
    return Scored(pair.kind, agreement(preference), turned, longer)


def figures(rows: Sequence[Scored], resamples: int, seed: int) -> dict[str, Any]:
    """Agreement and the two biases of some pairs, each with its interval."""
    agreed, turned, longer = (
        [getattr(row, name) for row in rows] for name in ("agreement", "position", "length")
    )
    return {
        "agreement": mean(agreed),
        "n": len(rows),
        "ci95": mean_interval(agreed, resamples, seed),
        "position_bias": mean(turned),
        "position_bias_ci95": mean_interval(turned, resamples, seed),
        "length_bias": mean(longer),
        "length_bias_ci95": mean_interval(longer, resamples, seed),
    }


def prefers_longer(pair: GoldPair, preference: float) -> bool:
    return len(pair.better.split()) < len(pair.worse.split()) and preference < 0.5


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
