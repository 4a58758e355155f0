"""Rule-based corruptions of a good paraphrase: negatives for the training of a reward model.

Gold pairs are few. Each better text is therefore also paired with texts that are certainly worse
for its literal: a good text about something else, the literal itself, shuffled words, a stutter, a
sentence that stops half way, or one padded with the literal. Every function is pure; randomness is
explicit: the generator is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random


def shuffle_words(text: str, literal: str, rng: Random) -> str:
    """The words of `text` in random order."""
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def stutter(text: str, literal: str, rng: Random) -> str:
    """The first half of the words twice, then a quarter of them."""
    words = text.split()
    half = max(2, len(words) // 2)
    return " ".join(words[:half] * 2 + words[: half // 2])


def truncate(text: str, literal: str, rng: Random) -> str:
    """The first half of the words."""
    words = text.split()
    return " ".join(words[: max(3, len(words) // 2)])


def pad_with_literal(text: str, literal: str, rng: Random) -> str:
    """`text`, then the literal as an explanation."""
    return f"{text.rstrip('.')}, which is to say that {literal[:1].lower()}{literal[1:]}"


def copy_literal(text: str, literal: str, rng: Random) -> str:
    """The literal itself."""
    return literal


CORRUPTIONS: tuple[Callable[[str, str, Random], str], ...] = (
    shuffle_words,
    copy_literal,
    pad_with_literal,
    stutter,
    truncate,
)


def off_topic(text: str, others: Sequence[str], rng: Random) -> str:
    """One of `others` that is not `text`; `text` itself when there is no other."""
    return rng.choice([other for other in others if other != text] or [text])


def worse_versions(literal: str, text: str, others: Sequence[str], rng: Random) -> list[str]:
    """Two negatives for `text`: one about something else, one by a rule drawn from CORRUPTIONS."""
    return [off_topic(text, others, rng), rng.choice(CORRUPTIONS)(text, literal, rng)]
