"""Duplicates and near-duplicates among literals."""

from __future__ import annotations

import numpy as np

from quip.core.text import fold
from quip.data.drop_counts import Drops
from quip.data.sources import Found

CHUNK = 4000
PIECE = 250
"""Rows that are put to `Letters` at once, and those of like length that are compared at once."""


LETTERS = 32
"""Classes of characters, by code point modulo this: a to z have one each."""


def unique(rows: list[Found], drops: Drops) -> list[Found]:
    """The first row of each folded text and of each id; `rows` come best keeper first."""
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


def far(rows: list[Found], others: list[Found], cutoff: float, drops: Drops) -> list[Found]:
    """The rows whose folded text is at most `cutoff` similar (0 to 100) to each of `others`."""
    kept = []
    against = Letters([fold(row.text) for row in others])
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        found = against.highest([fold(row.text) for row in chunk], cutoff)
        for row, near in zip(chunk, found, strict=True):
            if near > cutoff:
                drops.add("near_duplicate", row.text)
            else:
                kept.append(row)
    return kept


class Letters:
    """Texts to compare others with. The rapidfuzz ratio of texts of m and n letters is 200 l / (m +
    n) with l their longest common subsequence, which is no longer than the shorter of them and than
    the letters they share in any order. So only texts of like length are looked at; the letters are
    counted for all pairs of these at once, by a matrix product of unary counts; and the few pairs
    that share enough are compared. Exact: no pair that is alike is left out."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = sorted(texts, key=len)
        self.lengths = lengths_of(self.texts)
        counts = letters(self.texts)
        self.most = int(counts.max(initial=0))
        every = unary(counts, self.most)
        self.seen = every.any(axis=0)
        self.unary = every[:, self.seen].astype(np.float32)

    def highest(self, texts: list[str], cutoff: float) -> list[float]:
        """For each text its highest ratio to any of these; below `cutoff` it counts 0."""
        found = np.zeros(len(texts))
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), PIECE):
            places = by_length[start : start + PIECE]
            found[places] = self.highest_of_like_length([texts[i] for i in places], cutoff)
        return found.tolist()

    def highest_of_like_length(self, texts: list[str], cutoff: float) -> np.ndarray:
        """As `highest`; `texts` come shortest first."""
        from rapidfuzz import fuzz, process

        found = np.zeros(len(texts))
        least = cutoff / (200 - cutoff)
        low = int(np.searchsorted(self.lengths, len(texts[0]) * least - 0.01))
        high = int(np.searchsorted(self.lengths, len(texts[-1]) / least + 0.01))
        if low >= high:
            return found
        mine = unary(letters(texts), self.most)[:, self.seen].astype(np.float32)
        spare = mine @ self.unary[low:high].T
        spare -= np.float32(cutoff / 200) * lengths_of(texts)[:, None]
        spare -= np.float32(cutoff / 200) * self.lengths[low:high]
        rows, columns = np.nonzero(spare >= -0.01)
        left, right = [texts[i] for i in rows], [self.texts[low + j] for j in columns]
        scores = process.cpdist(left, right, scorer=fuzz.ratio, score_cutoff=cutoff, workers=-1)
        np.maximum.at(found, rows, scores)
        return found


def lengths_of(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts], dtype=np.float32)


def letters(texts: list[str]) -> np.ndarray:
    """How often each class of characters stands in each text, (n, LETTERS)."""
    codes = (np.frombuffer(text.encode("utf-32-le"), np.uint32) % LETTERS for text in texts)
    found = [np.bincount(code, minlength=LETTERS) for code in codes]
    return np.array(found, dtype=np.int64).reshape(-1, LETTERS)


def unary(counts: np.ndarray, most: int) -> np.ndarray:
    """(n, LETTERS * most), true as often as a class occurs, so that the product of two rows is the
    number of characters two texts share, of at most `most` each."""
    return (counts[:, :, None] > np.arange(most)).reshape(len(counts), LETTERS * most)


def cut(rows: list[Found], limit: int | None, drops: Drops) -> list[Found]:
    for row in rows[limit:] if limit else []:
        drops.add("over_limit", row.text)
    return rows[:limit]
