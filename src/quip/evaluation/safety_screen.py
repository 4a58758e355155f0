"""Which texts a person should look at before others read them: patterns, words, a classifier.

The patterns stand in data/safety/patterns.yaml, own words in the file that `safety.words` names. A
screen by words finds plain cases only; the classifier is a chat endpoint of params.yaml, if named.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from quip.core.records import Row, Split
from quip.core.text import APOSTROPHES, fold
from quip.llm.requests import prompts
from quip.llm.requests.chat import ModelReply, Request
from quip.runtime.errors import DataError

DIGEST = re.compile(r"[0-9a-f]{64}")
SLOT = re.compile(r"<([a-z_]+)>")
LONGEST = 3
"""Words of a phrase that stands in the words file as a digest."""
WORDS = "words"
OTHER = "other"


class Flag(Row):
    """One text that was flagged: who wrote it, and why. `by` is "patterns", "words" or the name of
    the endpoint, `rule` which pattern of the category, as "violence 2"."""

    name: str
    input: str
    split: Split
    text: str
    category: str
    by: str
    rule: str


class Rule(NamedTuple):
    category: str
    number: int
    pattern: re.Pattern[str]


class Words(NamedTuple):
    """Folded phrases in the clear, and sha256 digests of folded phrases."""

    plain: frozenset[str]
    digests: frozenset[str]


class Hit(NamedTuple):
    category: str
    by: str
    rule: str


def read_patterns(path: Path) -> tuple[list[Rule], dict[str, Any]]:
    """The rules, and the categories as they are written. Raises DataError by category."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        categories = document["categories"]
        lists = {
            name: f"(?:{'|'.join(entries)})"
            for name, entries in (document.get("lists") or {}).items()
        }
        named = [(key, entry["patterns"]) for key, entry in categories.items()]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: no list of categories with patterns ({error}).") from None
    rules = [
        Rule(category, number, compiled(pattern, lists, f"{path}, {category} {number}"))
        for category, patterns in named
        for number, pattern in enumerate(patterns, start=1)
    ]
    return rules, categories


def compiled(pattern: str, lists: dict[str, str], where: str) -> re.Pattern[str]:
    def entry(found: re.Match[str]) -> str:
        if found[1] not in lists:
            raise DataError(f"{where}: there is no list '{found[1]}'.")
        return lists[found[1]]

    try:
        return re.compile(SLOT.sub(entry, pattern), re.IGNORECASE)
    except (re.error, TypeError) as error:
        raise DataError(f"{where}: not a regular expression ({error}).") from None


def read_words(path: Path) -> Words:
    """One word or phrase a line, in the clear or as the sha256 of its fold; `#` begins a note."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. It is named in params.yaml, safety.words.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    digests = {line.lower() for line in wanted if DIGEST.fullmatch(line.lower())}
    plain = {fold(line) for line in wanted if line.lower() not in digests}
    return Words(frozenset(plain - {""}), frozenset(digests))


def screen(text: str, rules: Sequence[Rule], words: Words) -> list[Hit]:
    """Each category that a text falls into, once, by the first pattern that matches."""
    flat = plain(text)
    found: dict[str, Hit] = {}
    for rule in rules:
        if rule.category not in found and rule.pattern.search(flat):
            name = f"{rule.category} {rule.number}"
            found[rule.category] = Hit(rule.category, "patterns", name)
    if holds(text, words):
        found[WORDS] = Hit(WORDS, WORDS, WORDS)
    return list(found.values())


def plain(text: str) -> str:
    """Width, apostrophes and spaces made plain; punctuation stays, which e-mail addresses need."""
    return " ".join(APOSTROPHES.sub("'", unicodedata.normalize("NFKC", text)).split())


def holds(text: str, words: Words) -> bool:
    folded = fold(text)
    padded = f" {folded} "
    if any(f" {phrase} " in padded for phrase in words.plain):
        return True
    return bool(words.digests) and any(
        sha256(phrase.encode()).hexdigest() in words.digests for phrase in phrases(folded.split())
    )


def phrases(found: Sequence[str]) -> Iterator[str]:
    """Every run of one to LONGEST words."""
    for size in range(1, LONGEST + 1):
        for start in range(len(found) - size + 1):
            yield " ".join(found[start : start + size])


def question(messages: prompts.Messages, text: str) -> Request:
    """The call that asks a classifier about one text."""
    return Request(prompts.fill(messages, text=text), max_tokens=16, cut_off=True)


def heard(reply: ModelReply | None, categories: Sequence[str]) -> str | None:
    """What a classifier said: a category, "other" for unsafe without a known one, "" for safe;
    None when it cannot be read."""
    said = fold(reply.text) if reply else ""
    first, _, rest = said.partition(" ")
    if first == "safe":
        return ""
    if first != "unsafe":
        return None
    named = [category for category in categories if fold(category) in rest]
    return named[0] if named else OTHER
