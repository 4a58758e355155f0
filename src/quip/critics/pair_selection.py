"""Pair selection: the texts of an input that the critic compares.

The `compare` most diverse texts of similar length are chosen, and every two of them are compared (a
round-robin; with two texts, one comparison). The paper compares the most diverse pair of similar
length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from pydantic import BaseModel, ConfigDict, Field
from rapidfuzz.distance import Levenshtein

from quip.core.params import Section
from quip.core.records import Candidate
from quip.critics.comparison import Comparison


def ngrams(text: str, n: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def edit_distance(a: str, b: str, n: int) -> float:
    """Normalised edit distance d(a, b) over n-grams of words, in [0, 1]; 0 for equal words."""
    return float(Levenshtein.normalized_distance(ngrams(a, n), ngrams(b, n)))


Group = tuple[Candidate, ...]


class CritiqueParams(Section):
    """Section `critique`, read by `critique` and `rank`."""

    ngram: int = Field(ge=1)
    length_ratio: tuple[float, float]
    unproven: str | None
    """Name (`critic_settings.critic_name`) of a critic that may be learned from although its audit
    reaches chance."""


class CandidateCounts(BaseModel):
    """The keys of section `candidates` that the stage `critique` reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    k: int
    compare: int = Field(ge=2)


def choose_comparisons(
    candidates: Iterable[Candidate], params: CritiqueParams, compare: int
) -> tuple[list[Comparison], Counter[str]]:
    """The comparisons of all training inputs, and the number of inputs without any, by reason
    (`all_alike`, `length_ratio`). If fewer than `compare` texts are of similar length, these are
    compared."""
    by_input: dict[str, list[Candidate]] = {}
    for row in candidates:
        if row.split == "train" and row.text:
            by_input.setdefault(row.input, []).append(row)
    pairs, dropped = [], Counter[str]()
    for rows in by_input.values():
        distinct = list({row.text: row for row in rows}.values())
        group = most_diverse(distinct, params, compare)
        if group:
            pairs += [candidate_comparison(a, b) for a, b in combinations(group, 2)]
        else:
            dropped["all_alike" if len(distinct) < 2 else "length_ratio"] += 1
    return pairs, dropped


def most_diverse(rows: Sequence[Candidate], params: CritiqueParams, compare: int) -> Group:
    """The largest group of up to `compare` texts of similar length; among several, the first with
    the largest sum of distances. () when no two texts are of similar length."""
    for size in range(min(compare, len(rows)), 1, -1):
        groups = [g for g in combinations(rows, size) if similar_lengths(g, params)]
        if groups:
            return max(groups, key=lambda group: sum_of_distances(group, params.ngram))
    return ()


def similar_lengths(group: Group, params: CritiqueParams) -> bool:
    """Whether words(longest) / words(shortest), and its inverse, lie within the allowed ratio
    (the paper: 0.8 to 1.2)."""
    low, high = params.length_ratio
    counts = sorted(len(row.text.split()) for row in group)
    return low <= counts[0] / counts[-1] and counts[-1] / counts[0] <= high


def sum_of_distances(group: Group, ngram: int) -> float:
    return sum(edit_distance(a.text, b.text, ngram) for a, b in combinations(group, 2))


def candidate_comparison(a: Candidate, b: Candidate) -> Comparison:
    return Comparison(a.input, a.split, a.literal, str(a.sample), str(b.sample), a.text, b.text)
