"""Measures of generated texts: length, copying, variety, stock phrases. Pure.

Small students tend to copy their input or to repeat one phrase; a judge that reads one text at a
time sees neither. Texts are compared folded (`quip.core.text.fold`): case, punctuation and spacing
do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rapidfuzz import fuzz

from quip.core.text import count_words, fold

COPY_RATIO = 95.0


def length_ratio(text: str, other: str) -> float:
    """words(text) / words(other); an empty `other` counts as one word."""
    return count_words(text) / max(1, count_words(other))


def is_copy(text: str, literal: str) -> bool:
    """Folded equality, or a normalised indel similarity (rapidfuzz ratio) of at least 95 of 100."""
    a, b = fold(text), fold(literal)
    return a == b or fuzz.ratio(a, b) >= COPY_RATIO


def ngrams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """The runs of n neighbouring folded words, in order."""
    found = fold(text).split()
    return zip(*(found[start:] for start in range(n)), strict=False)


def distinct_n(texts: Iterable[str], n: int) -> float:
    """distinct-n = unique n-grams / all n-grams of the whole set; 0.0 when there are none.

    It falls with the size of the set, so only sets of the same inputs compare (Li et al. 2016).
    """
    found = [gram for text in texts for gram in ngrams(text, n)]
    return len(set(found)) / len(found) if found else 0.0


def most_common_ngram(texts: Sequence[str], n: int = 4) -> tuple[str, float]:
    """The n-gram that most texts contain, and the share of texts that contain it.

    share = texts with it / texts; each text counts once, however often it repeats the n-gram.
    Ties go to the first in the alphabet; ("", 0.0) when no text has n words.
    """
    holders = Counter(gram for text in texts for gram in set(ngrams(text, n)))
    if not holders:
        return "", 0.0
    gram, held = min(holders.items(), key=lambda item: (-item[1], item[0]))
    return " ".join(gram), held / len(texts)


def mean_words(texts: Sequence[str]) -> float:
    """Mean words per text; 0 without texts."""
    return sum(map(count_words, texts)) / len(texts) if texts else 0.0


def text_measures(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The measures of one set of (text, literal) pairs, at least one.

    n; words = mean words of a text; length_ratio = mean of words(text) / words(literal);
    copy_rate = share of texts that copy their literal; distinct_1, distinct_2; top_4gram and
    top_4gram_share (see `most_common_ngram`).
    """
    texts = [text for text, _ in pairs]
    phrase, share = most_common_ngram(texts)
    return {
        "n": len(pairs),
        "words": mean_words(texts),
        "length_ratio": sum(length_ratio(*pair) for pair in pairs) / len(pairs),
        "copy_rate": sum(is_copy(*pair) for pair in pairs) / len(pairs),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "top_4gram": phrase,
        "top_4gram_share": share,
    }
