"""Deduplication of literals: exact duplicates and near-duplicates by edit similarity."""

from __future__ import annotations

import numpy as np

from quip.core.text import fold
from quip.data.drop_counts import Drops
from quip.data.sources import SourceLiteral

CHUNK = 4000
BATCH = 250
"""Rows passed to `SimilarityIndex` at once, and rows of similar length compared at once."""


CLASSES = 32
"""Number of character classes: code point modulo this. The letters a to z have one class each."""


def drop_duplicates(rows: list[SourceLiteral], drops: Drops) -> list[SourceLiteral]:
    """The rows without duplicates: the first row of each folded text and of each id."""
    texts: set[str] = set()
    ids: set[str] = set()
    kept = []
    for row in rows:
        if fold(row.text) in texts:
            drops.add("duplicate", row.text)
        elif row.id in ids:
            drops.add("duplicate_id", f"{row.id}: {row.text}")
        else:
            kept.append(row)
            texts.add(fold(row.text))
            ids.add(row.id)
    return kept


def drop_near_duplicates(
    rows: list[SourceLiteral], others: list[SourceLiteral], cutoff: float, drops: Drops
) -> list[SourceLiteral]:
    """The rows whose folded text has a similarity (0 to 100) of at most `cutoff` to each of
    `others`."""
    kept = []
    against = SimilarityIndex([fold(row.text) for row in others])
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        found = against.highest([fold(row.text) for row in chunk], cutoff)
        for row, near in zip(chunk, found, strict=True):
            if near > cutoff:
                drops.add("near_duplicate", row.text)
            else:
                kept.append(row)
    return kept


class SimilarityIndex:
    """Index of texts for exact search by rapidfuzz ratio.

    The ratio of texts of m and n letters is 200 l / (m + n), with l the length of their longest
    common subsequence. l is at most the length of the shorter text, and at most the number of
    letters they share in any order. The search therefore considers texts of similar length only,
    counts the shared letters of all their pairs at once by a matrix product of unary codes, and
    computes the ratio of the few pairs that share enough. No pair above the cutoff is missed.
    """

    def __init__(self, texts: list[str]) -> None:
        self.texts = sorted(texts, key=len)
        self.lengths = text_lengths(self.texts)
        counts = letter_counts(self.texts)
        self.max_count = int(counts.max(initial=0))
        every = unary_code(counts, self.max_count)
        self.seen = every.any(axis=0)
        self.unary = every[:, self.seen].astype(np.float32)

    def highest(self, texts: list[str], cutoff: float) -> list[float]:
        """The highest ratio of each text to any text of the index; 0 below `cutoff`."""
        found = np.zeros(len(texts))
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), BATCH):
            places = by_length[start : start + BATCH]
            found[places] = self.highest_of_like_length([texts[i] for i in places], cutoff)
        return found.tolist()

    def highest_of_like_length(self, texts: list[str], cutoff: float) -> np.ndarray:
        """`highest` of one batch, whose `texts` are sorted by length."""
        from rapidfuzz import fuzz, process

        found = np.zeros(len(texts))
        least = cutoff / (200 - cutoff)
        low = int(np.searchsorted(self.lengths, len(texts[0]) * least - 0.01))
        high = int(np.searchsorted(self.lengths, len(texts[-1]) / least + 0.01))
        if low >= high:
            return found
        mine = unary_code(letter_counts(texts), self.max_count)[:, self.seen].astype(np.float32)
        spare = mine @ self.unary[low:high].T
        spare -= np.float32(cutoff / 200) * text_lengths(texts)[:, None]
        spare -= np.float32(cutoff / 200) * self.lengths[low:high]
        rows, columns = np.nonzero(spare >= -0.01)
        left, right = [texts[i] for i in rows], [self.texts[low + j] for j in columns]
        scores = process.cpdist(left, right, scorer=fuzz.ratio, score_cutoff=cutoff, workers=-1)
        np.maximum.at(found, rows, scores)
        return found


def text_lengths(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts], dtype=np.float32)


def letter_counts(texts: list[str]) -> np.ndarray:
    """The count of each character class in each text, (n, CLASSES)."""
    codes = (np.frombuffer(text.encode("utf-32-le"), np.uint32) % CLASSES for text in texts)
    found = [np.bincount(code, minlength=CLASSES) for code in codes]
    return np.array(found, dtype=np.int64).reshape(-1, CLASSES)


def unary_code(counts: np.ndarray, most: int) -> np.ndarray:
    """The unary code of counts (n, CLASSES), a boolean array (n, CLASSES * most).

    Each class has `most` places, of which as many are true as its count. The product of two rows is
    then the number of characters that two texts share.
    """
    return (counts[:, :, None] > np.arange(most)).reshape(len(counts), CLASSES * most)


def limit_rows(rows: list[SourceLiteral], limit: int | None, drops: Drops) -> list[SourceLiteral]:
    """The first `limit` rows, or all rows without a limit."""
    for row in rows[limit:] if limit else []:
        drops.add("over_limit", row.text)
    return rows[:limit]
