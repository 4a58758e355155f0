"""Is a text English? A modest answer: only what is clearly something else is said not to be."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Any

from quip.core.text import words

MIN_WORDS = 5  # shorter texts are names, smileys and guesses
MARGIN = 0.35  # on 9,400 English sentences, chats included, 2 lie further on the wrong side
FOREIGN_SHARE = 0.1


def is_english(text: str) -> bool:
    """False for text in another script, or clearly more likely in another common language."""
    return not other_script(text) and (words(text) < MIN_WORDS or not other_language(text))


def other_script(text: str) -> bool:
    """Whether more than one letter, and more than a tenth of them, are not Latin."""
    letters = [char for char in unicodedata.normalize("NFKC", text) if char.isalpha()]
    foreign = [char for char in letters if not unicodedata.name(char, "").startswith("LATIN")]
    return len(foreign) > max(1, FOREIGN_SHARE * len(letters))


def other_language(text: str) -> bool:
    likely = {value.language.name: value.value for value in confidences(text)}
    return max(likely.values()) - likely["ENGLISH"] > MARGIN


def confidences(text: str) -> Any:
    return detector().compute_language_confidence_values(text)


@cache
def detector() -> Any:
    """Six common languages in Latin script: few, so that it starts in a third of a second."""
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
