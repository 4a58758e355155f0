"""Safety screen: patterns, words and a classifier flag texts for a person to check first.

The patterns are in data/safety/patterns.yaml, the user's words in the file that `safety.words`
names. Patterns and words find only plain cases. The classifier is optional, a chat endpoint of
params.yaml.
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
MAX_PHRASE_WORDS = 3
"""Longest phrase, in words, that the words file may list as a digest."""
WORDS = "words"
OTHER = "other"


class Flag(Row):
    """A flagged text, its writer (`name`) and the reason. `by` is "patterns", "words" or the name
    of the endpoint; `rule` is the pattern of the category, such as "violence 2"."""

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
    """The compiled rules, and the categories as written in the file. Raises DataError when the file
    has no categories with patterns, or names the category of a bad pattern."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        categories = document["categories"]
        lists = {
            name: f"(?:{'|'.join(entries)})"
            for name, entries in (document.get("lists") or {}).items()
        }
        named = [(key, entry["patterns"]) for key, entry in categories.items()]
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: found no categories with patterns ({error}).") from None
    rules = [
        Rule(category, number, compile_pattern(pattern, lists, f"{path}, {category} {number}"))
        for category, patterns in named
        for number, pattern in enumerate(patterns, start=1)
    ]
    return rules, categories


def compile_pattern(pattern: str, lists: dict[str, str], where: str) -> re.Pattern[str]:
    def entry(found: re.Match[str]) -> str:
        if found[1] not in lists:
            raise DataError(f"{where}: there is no list '{found[1]}'.")
        return lists[found[1]]

    try:
        return re.compile(SLOT.sub(entry, pattern), re.IGNORECASE)
    except (re.error, TypeError) as error:
        raise DataError(f"{where}: not a regular expression ({error}).") from None


def read_words(path: Path) -> Words:
    """Read one word or phrase per line, as text or as the sha256 of the folded phrase; lines that
    begin with `#` are comments. Raises DataError when the file is missing."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. It is named in params.yaml, safety.words.")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    entries = [line for line in lines if line and not line.startswith("#")]
    digests = {line.lower() for line in entries if DIGEST.fullmatch(line.lower())}
    plain = {fold(line) for line in entries if line.lower() not in digests}
    return Words(frozenset(plain - {""}), frozenset(digests))


def screen(text: str, rules: Sequence[Rule], words: Words) -> list[Hit]:
    """One hit for each category with a matching pattern (the first that matches), and one for a
    listed word."""
    flat = normalise(text)
    found: dict[str, Hit] = {}
    for rule in rules:
        if rule.category not in found and rule.pattern.search(flat):
            name = f"{rule.category} {rule.number}"
            found[rule.category] = Hit(rule.category, "patterns", name)
    if contains_listed_phrase(text, words):
        found[WORDS] = Hit(WORDS, WORDS, WORDS)
    return list(found.values())


def normalise(text: str) -> str:
    """`text` with normalised Unicode, apostrophes and spaces; punctuation stays, since e-mail
    addresses need it."""
    return " ".join(APOSTROPHES.sub("'", unicodedata.normalize("NFKC", text)).split())


def contains_listed_phrase(text: str, words: Words) -> bool:
    folded = fold(text)
    padded = f" {folded} "
    if any(f" {phrase} " in padded for phrase in words.plain):
        return True
    return bool(words.digests) and any(
        sha256(phrase.encode()).hexdigest() in words.digests for phrase in word_runs(folded.split())
    )


def word_runs(found: Sequence[str]) -> Iterator[str]:
    """Every run of one to MAX_PHRASE_WORDS neighbouring words."""
    for size in range(1, MAX_PHRASE_WORDS + 1):
        for start in range(len(found) - size + 1):
            yield " ".join(found[start : start + size])


def classifier_request(messages: prompts.Messages, text: str) -> Request:
    """The request that asks a classifier about one text."""
    return Request(prompts.fill(messages, text=text), max_tokens=16, cut_off=True)


def parse_classification(reply: ModelReply | None, categories: Sequence[str]) -> str | None:
    """The category in a classifier's reply: "" for safe, "other" for unsafe without a known
    category, None when the reply cannot be read."""
    answer = fold(reply.text) if reply else ""
    first, _, rest = answer.partition(" ")
    if first == "safe":
        return ""
    if first != "unsafe":
        return None
    named = [category for category in categories if fold(category) in rest]
    return named[0] if named else OTHER
