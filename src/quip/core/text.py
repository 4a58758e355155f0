"""Text functions: normalisation, equality, length in words, and stable digests."""

from __future__ import annotations

import hashlib
import re
import unicodedata

NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\u200b\u2060\ufeff\ud800-\udfff]")
APOSTROPHES = re.compile(r"['`\u2018\u2019\u02bc]")
NOT_WORD = re.compile(r"[\W_]+")


def tidy(text: str) -> str:
    """`text` on one line, without control characters, zero-width characters and surrogates."""
    return " ".join(NOT_TEXT.sub("", text).split())


def fold(text: str) -> str:
    """`text` without case, punctuation and character width. Texts with equal folds are the same.

    A text without any letter or digit folds to "".
    """
    plain = APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    return NOT_WORD.sub(" ", plain).strip()


def count_words(text: str) -> int:
    """The number of words, separated by white space."""
    return len(text.split())


def digest(*parts: object) -> str:
    """The hexadecimal sha256 of `parts`, for stable orders and ids; unlike Python's own `hash` it
    is equal on every machine."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
