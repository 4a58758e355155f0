"""How different two texts are."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein


def ngrams(text: str, n: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def edit_distance(a: str, b: str, n: int) -> float:
    """n-gram edit distance, in [0, 1]: Levenshtein distance between the two sequences of word
    n-grams, over the length of the longer (the paper's measure for the most diverse pair; it
    leaves the normalisation open, this is ours)."""
    return float(Levenshtein.normalized_distance(ngrams(a, n), ngrams(b, n)))
