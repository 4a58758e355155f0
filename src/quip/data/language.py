"""Language identification: whether a text is English. Doubtful texts count as English."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from quip.core.text import count_words

MIN_WORDS = 5  # shorter texts, such as names and smileys, are not identified
MARGIN = 0.35  # of 9,400 English sentences, chats included, 2 exceed it
FOREIGN_SHARE = 0.1


def is_english(text: str) -> bool:
    """False for a text in another script, or much more likely in another common language."""
    return not has_other_script(text) and (
        count_words(text) < MIN_WORDS or not has_other_language(text)
    )


def has_other_script(text: str) -> bool:
    """Whether more than one letter, and more than FOREIGN_SHARE of all letters, are not Latin."""
    letters = [char for char in unicodedata.normalize("NFKC", text) if char.isalpha()]
    foreign = [char for char in letters if not unicodedata.name(char, "").startswith("LATIN")]
    return len(foreign) > max(1, FOREIGN_SHARE * len(letters))


def has_other_language(text: str) -> bool:
    """Whether the most likely language exceeds the confidence of English by more than MARGIN."""
    likely = {value.language.name: value.value for value in confidences(text)}
    return max(likely.values()) - likely["ENGLISH"] > MARGIN


def confidences(text: str) -> Any:
    return detector().compute_language_confidence_values(text)


@cache
def detector() -> Any:
    """Lingua's detector for six common languages in Latin script; it loads in 0.3 seconds."""
    from lingua import Language, LanguageDetectorBuilder

    languages = (
        Language.ENGLISH,
        Language.SPANISH,
        Language.FRENCH,
        Language.GERMAN,
        Language.ITALIAN,
        Language.PORTUGUESE,
    )
    return LanguageDetectorBuilder.from_languages(*languages).build()
