"""Ranking: the texts of an input ranked by the critic's comparisons, and one training pair.

Pure. The score of a text is the mean, over its readable comparisons, of the calibrated preference
for it (`quip.critics.debiasing.calibrated_preference`). With two texts that is the preference
itself. A comparison with equal answers in both orders is undecided under every debiasing method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from quip.core.records import Critique, Preference, Ranking
from quip.critics.debiasing import ROUNDING, Debias, calibrated_preference


def decide(
    critiques: Iterable[Critique], debias: Debias, min_confidence: float
) -> tuple[list[Preference], list[Ranking], Counter[str]]:
    """Training pairs and rankings, the most confident first, and counts of dropped inputs.

    The pair of an input is its best and its worst text, with the critic's preference between the
    two. An input whose preference could not be read (`unparsed`) or is below `min_confidence`
    (`unsure`) gives neither pair nor ranking.
    """
    by_input: dict[str, list[Critique]] = {}
    for critique in critiques:
        by_input.setdefault(critique.input, []).append(critique)
    kept, dropped = [], Counter[str]()
    for rows in by_input.values():
        ranking = rank(rows, debias)
        value = (
            preference_between(ranking.texts[0], ranking.texts[-1], rows, debias)
            if ranking
            else None
        )
        if ranking is None or value is None:
            dropped["unparsed"] += 1
        elif value < min_confidence or value <= 0.5:
            dropped["unsure"] += 1
        else:
            kept.append((training_pair(ranking, value), ranking))
    kept.sort(key=lambda both: (-both[0].confidence, both[0].input))
    return [first for first, _ in kept], [second for _, second in kept], dropped


def rank(critiques: Sequence[Critique], debias: Debias) -> Ranking | None:
    """The texts of one input, best first; equal scores in the order of the comparisons. None when
    no comparison could be read."""
    votes: dict[str, list[float]] = {}
    for critique in critiques:
        value = preference_for_a(critique, debias)
        if value is not None:
            votes.setdefault(critique.a, []).append(value)
            votes.setdefault(critique.b, []).append(1 - value)
    if not votes:
        return None
    scores = {text: sum(found) / len(found) for text, found in votes.items()}
    texts = sorted(scores, key=lambda text: -scores[text])
    return Ranking(
        input=critiques[0].input,
        literal=critiques[0].literal,
        texts=texts,
        scores=[scores[text] for text in texts],
        ranks=ranks([scores[text] for text in texts]),
    )


def preference_for_a(critique: Critique, debias: Debias) -> float | None:
    """The calibrated preference for text `a`; one half when the answers in both orders are equal.
    Such a critic names a position, not a text; averaging cancels that, a single order does not."""
    first = critique.forward.p_first
    if first is not None and first == critique.backward.p_first:
        return 0.5
    return calibrated_preference(critique, debias)


def ranks(scores: Sequence[float]) -> list[int]:
    """Ranks of descending scores, from 0; equal scores share a rank."""
    found = [0]
    for before, score in pairwise(scores):
        found.append(found[-1] + (before - score > ROUNDING))
    return found


def preference_between(
    best: str, worst: str, critiques: Iterable[Critique], debias: Debias
) -> float | None:
    """The calibrated preference for `best` over `worst` in their comparison; None without one."""
    for critique in critiques:
        if {critique.a, critique.b} == {best, worst}:
            value = preference_for_a(critique, debias)
            return value if value is None or critique.a == best else 1 - value
    return None


def training_pair(ranking: Ranking, confidence: float) -> Preference:
    return Preference(
        input=ranking.input,
        literal=ranking.literal,
        chosen=ranking.texts[0],
        rejected=ranking.texts[-1],
        confidence=confidence,
    )
