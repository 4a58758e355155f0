"""Critic audit: agreement with the gold pairs, position bias and length bias.

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
from quip.evaluation.metrics.bootstrap import rounded_interval
from quip.runtime.errors import DataError

HUMOR = ("plain", "weaker", "length")
CONTENT = ("off_topic", "nonsense")
TESTS = {"ag_h": HUMOR, "ag_c": CONTENT}
"""{key of critic.json: kinds of gold pairs} of Ag-H and Ag-C."""


def agreement(preference: float) -> float:
    """1 when the better text is preferred, 0 when the worse is, 1/2 when neither is."""
    return 1.0 if preference > 0.5 else 0.0 if preference < 0.5 else 0.5


def audit_summary(
    pairs: Sequence[GoldPair],
    critiques: Sequence[Critique],
    debias: Debias,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The content of critic.json. `critiques` answer `pairs` in order, with the better text as `a`.

    Raises DataError when no answer could be read.
    """
    read = [
        (p, c, v)
        for p, c in zip(pairs, critiques, strict=True)
        if (v := calibrated_preference(c, debias)) is not None
    ]
    if not read:
        raise DataError("audit: no answer of the critic could be read. Look at prompts/critic.txt.")
    scored = [score_pair(p, c, v) for p, c, v in read]
    kinds = dict.fromkeys(pair.kind for pair, _, _ in read)
    first = [
        answer.p_first > 0.5
        for _, c, _ in read
        for answer in (c.forward, c.backward)
        if answer.p_first is not None
    ]

    def figures_of(wanted: Sequence[str]) -> dict[str, Any]:
        return agreement_figures([one for one in scored if one.kind in wanted], resamples, seed)

    whole = figures_of(list(kinds))
    return {
        **{key: whole[key] for key in ("agreement", "ci95", "position_bias", "length_bias", "n")},
        "position_bias_ci95": whole["position_bias_ci95"],
        "length_bias_ci95": whole["length_bias_ci95"],
        **{
            name: figures_of(wanted) for name, wanted in TESTS.items() if kinds.keys() & set(wanted)
        },
        "first_share": rounded_mean([float(value) for value in first]),
        "unparsed": round(1 - len(read) / len(pairs), 4),
        "unparsed_pairs": len(pairs) - len(read),
        "sources": {
            s: sum(c.forward.source == s for c in critiques)
            for s in sorted({c.forward.source for c in critiques})
        },
        "by_kind": {kind: figures_of([kind]) for kind in kinds},
    }


class PairScore(NamedTuple):
    """Agreement, position flip and length preference on one readable pair, each in [0, 1]."""

    kind: str
    agreement: float
    position: float
    length: float


def score_pair(pair: GoldPair, critique: Critique, preference: float) -> PairScore:
    flipped = float(bool(order_flips(critique.forward, critique.backward)))
    long = float(prefers_longer(pair, preference))
    return PairScore(pair.kind, agreement(preference), flipped, long)


def agreement_figures(rows: Sequence[PairScore], resamples: int, seed: int) -> dict[str, Any]:
    """Mean agreement and the two biases over `rows`, each with a 95 % bootstrap interval."""
    agreed, flipped, longer = (
        [getattr(row, name) for row in rows] for name in ("agreement", "position", "length")
    )
    return {
        "agreement": rounded_mean(agreed),
        "n": len(rows),
        "ci95": rounded_interval(agreed, resamples, seed),
        "position_bias": rounded_mean(flipped),
        "position_bias_ci95": rounded_interval(flipped, resamples, seed),
        "length_bias": rounded_mean(longer),
        "length_bias_ci95": rounded_interval(longer, resamples, seed),
    }


def prefers_longer(pair: GoldPair, preference: float) -> bool:
    """Whether the worse text is the longer one (in words) and is preferred."""
    return len(pair.better.split()) < len(pair.worse.split()) and preference < 0.5


def rounded_mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
