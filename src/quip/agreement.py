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

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from quip.errors import DataError
from quip.preference import Debias, flipped, of
from quip.records import Critique, GoldPair

CHANCE = 0.5
HUMOR = ("plain", "weaker", "length")
CONTENT = ("off_topic", "nonsense")
TESTS = {"ag_h": HUMOR, "ag_c": CONTENT}
"""The keys of critic.json for Ag-H and Ag-C, and the kinds of gold pairs they stand on."""


def check_proven(audit: Mapping[str, Any], name: str, allowed: str | None) -> None:
    """Refuse to learn from a critic whose agreement with the gold pairs reaches down to chance.

    `audit` is the content of critic.json, `name` the critic (`quip.critic.named`), `allowed` the
    one that is let through all the same. Raises DataError.
    """
    low, high = audit["ci95"]
    if low > CHANCE or allowed == name:
        return
    raise DataError(
        f"the critic '{name}' is not shown to be better than chance: its agreement with "
        f"the gold pairs is {audit['agreement']:.2f} [{low:.2f}, {high:.2f}]. Choose another "
        f"(critic.kind, critic.question, critic.endpoint), or set critique.unproven to {name} to "
        "learn from it all the same; the report will say so."
    )


def trusted(audit: Mapping[str, Any], judges: Sequence[str]) -> str:
    """The judge whose word counts where one must: the one that agrees best with the gold pairs.

    `audit` is the content of critic.json: the critic's figures at the top, those of the other
    judges by name. A judge that was not audited counts as a coin; of equals the first counts.
    """
    critic = audit.get("critic", {})
    name = {"learned": "learned", "mcp": critic.get("endpoint")}.get(critic.get("kind"))
    known = {name: audit.get("agreement", 0.5)}
    known |= {judge: found["agreement"] for judge, found in audit.get("judges", {}).items()}
    return max(judges, key=lambda judge: known.get(judge, 0.5))


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


def agreement(preference: float) -> float:
    """1 when the better text is preferred, 0 when the worse, 1/2 when neither."""
    return 1.0 if preference > 0.5 else 0.0 if preference < 0.5 else 0.5


def interval(values: Sequence[float], resamples: int, seed: int) -> list[float]:
    """95 % percentile bootstrap interval of the mean of `values` (one value an input)."""
    numbers = np.asarray(values, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(numbers), (resamples, len(numbers)))
    low, high = np.percentile(numbers[draws].mean(axis=1), [2.5, 97.5])
    return [round(float(low), 4), round(float(high), 4)]


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
        (p, c, v) for p, c in zip(pairs, critiques, strict=True) if (v := of(c, debias)) is not None
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
    turned = float(bool(flipped(critique.forward, critique.backward)))
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
        "ci95": interval(agreed, resamples, seed),
        "position_bias": mean(turned),
        "position_bias_ci95": interval(turned, resamples, seed),
        "length_bias": mean(longer),
        "length_bias_ci95": interval(longer, resamples, seed),
    }


def prefers_longer(pair: GoldPair, preference: float) -> bool:
    return len(pair.better.split()) < len(pair.worse.split()) and preference < 0.5


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)
