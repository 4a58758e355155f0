"""Worse versions of a good paraphrase, made by rule: what a learned critic must not fall for.

Gold pairs are few. Each better text is also shown beside a text that is certainly worse for its
literal: a good one about something else, the literal itself, words in disorder, a stutter, a
sentence that stops half way, or one padded with what was said already. Pure; chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random


def shuffled(text: str, literal: str, rng: Random) -> str:
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def stuttered(text: str, literal: str, rng: Random) -> str:
    words = text.split()
    half = max(2, len(words) // 2)
    return " ".join(words[:half] * 2 + words[: half // 2])


def cut(text: str, literal: str, rng: Random) -> str:
    words = text.split()
    return " ".join(words[: max(3, len(words) // 2)])


def padded(text: str, literal: str, rng: Random) -> str:
    return f"{text.rstrip('.')}, which is to say that {literal[:1].lower()}{literal[1:]}"


def copied(text: str, literal: str, rng: Random) -> str:
    return literal


SPOILED: tuple[Callable[[str, str, Random], str], ...] = (shuffled, copied, padded, stuttered, cut)


def off_topic(text: str, others: Sequence[str], rng: Random) -> str:
    """One of `others` that is not `text`; `text` itself when there is no other."""
    return rng.choice([other for other in others if other != text] or [text])


def worse_versions(literal: str, text: str, others: Sequence[str], rng: Random) -> list[str]:
    """One text about something else and one spoiled by a rule drawn from SPOILED."""
    return [off_topic(text, others, rng), rng.choice(SPOILED)(text, literal, rng)]
