"""What counts as the same text, how long a text is, and stable digests."""

from __future__ import annotations

import hashlib
import re
import unicodedata

NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\u200b\u2060\ufeff\ud800-\udfff]")
APOSTROPHES = re.compile(r"['`\u2018\u2019\u02bc]")
NOT_WORD = re.compile(r"[\W_]+")


def tidy(text: str) -> str:
    """`text` on one line, without characters that carry no text (controls, lone surrogates)."""
    return " ".join(NOT_TEXT.sub("", text).split())


def fold(text: str) -> str:
    """Case, punctuation and width folded away: texts with equal folds are the same text.

    A text without any letter or digit folds to "".
    """
    plain = APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    return NOT_WORD.sub(" ", plain).strip()


def words(text: str) -> int:
    """How many words, counted by the spaces between them."""
    return len(text.split())


def digest(*parts: object) -> str:
    """A stable hexadecimal digest of `parts`: the source of order and of ids, equal on every
    machine, unlike Python's own `hash`."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()
