"""How different two texts are: n-gram edit distance, d(a, b) = L(A, B) / max(|A|, |B|).

A and B are the texts' sequences of word n-grams (lower case, split at spaces; a text shorter than n
is one n-gram), L is Levenshtein's distance with insertion, deletion and substitution of a whole
n-gram at cost 1. The paper takes the pair with the largest n-gram edit distance; it leaves n and
the normalisation open, these are ours.
"""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein


def ngrams(text: str, n: int) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))]


def edit_distance(a: str, b: str, n: int) -> float:
    """d(a, b), in [0, 1]; 0 for texts of equal words."""
    return float(Levenshtein.normalized_distance(ngrams(a, n), ngrams(b, n)))
