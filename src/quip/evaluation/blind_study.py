"""Blind pairs for people: drawn from the answers of arms and teacher, written as one page.

The page (`web/human.html` with the pairs in it) works from a file, without a server or a network.
It holds sentences and texts in a random order and no name; who wrote what stands in the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from pydantic import ValidationError

from quip.core.jsonl import atomic, read_json, read_rows
from quip.core.records import Reference, Response, Row, Split
from quip.core.text import digest
from quip.runtime.errors import DataError

TEACHER = "teacher"


class Pair(Row):
    """Two texts for one literal in the order of the page, and who wrote them (`names`)."""

    id: str
    input: str
    literal: str
    texts: tuple[str, str]
    names: tuple[str, str]


class Key(Row):
    """What un-blinds a page. `pairs` are shown; `same`, two equal texts, are ties unasked.

    `sides` are the comparisons (a, b) whose results are of a against b."""

    page: str
    split: Split
    sides: list[tuple[str, str]]
    pairs: list[Pair]
    same: list[Pair]


def sides(arms: Sequence[str], duels: bool) -> list[tuple[str, str]]:
    """Every arm against the teacher, then every later arm against every earlier one."""
    against = [(arm, TEACHER) for arm in arms]
    return against + [(b, a) for a, b in combinations(arms, 2)] if duels else against


def read_texts(
    arms: Sequence[str], split: Split, responses: Path, references: Path
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """({input: literal}, {writer: {input: text}}) of the inputs that every writer answered."""
    teacher = [row for row in read_rows(references, Reference) if row.split == split]
    literals = {row.input: row.literal for row in teacher}
    texts = {TEACHER: {row.input: row.paraphrases[0] for row in teacher}}
    for arm in arms:
        rows = read_rows(responses / f"{arm}.jsonl", Response)
        texts[arm] = {row.input: row.text for row in rows if row.split == split}
    shared = {key: text for key, text in literals.items() if all(key in t for t in texts.values())}
    if not shared:
        raise DataError(
            f"no input of split '{split}' has an answer of every arm ({', '.join(arms)}) and of "
            "the teacher. Choose another split (respond.splits lists those that are answered)."
        )
    return shared, texts


def draw(
    literals: Mapping[str, str],
    texts: Mapping[str, Mapping[str, str]],
    compared: Sequence[tuple[str, str]],
    split: Split,
    n: int,
    seed: int,
) -> Key:
    """At most `n` inputs, the same ones in every comparison. In each, half of the pairs have side a
    as first text; then all pairs are shuffled."""
    inputs = sorted(literals, key=lambda key: digest(seed, key))[:n]
    rng = Random(digest("human", seed))
    drawn = []
    for a, b in compared:
        rng.shuffle(inputs)
        for place, key in enumerate(inputs):
            names = (a, b) if place % 2 else (b, a)
            drawn.append((key, names, (texts[names[0]][key], texts[names[1]][key])))
    rng.shuffle(drawn)
    pairs = [
        Pair(id=f"p{number:03}", input=key, literal=literals[key], texts=both, names=names)
        for number, (key, names, both) in enumerate(drawn, start=1)
    ]
    shown = [pair for pair in pairs if pair.texts[0] != pair.texts[1]]
    if not shown:
        raise DataError("the compared texts are all the same, so there is nothing to ask.")
    page = digest(*(part for pair in shown for part in public(pair).values()))[:16]
    same = [pair for pair in pairs if pair.texts[0] == pair.texts[1]]
    return Key(page=page, split=split, sides=list(compared), pairs=shown, same=same)


def public(pair: Pair) -> dict[str, Any]:
    """What of a pair a person may see."""
    return {"id": pair.id, "literal": pair.literal, "texts": list(pair.texts)}


def page(key: Key) -> str:
    """The page: the template with its pairs, "<" escaped so that no text can end the script."""
    shown = {"page": key.page, "pairs": [public(pair) for pair in key.pairs]}
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    template = files("quip.evaluation").joinpath("voting_page.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data)


def key_of(page_file: Path) -> Path:
    """page.html -> page.key.json beside it."""
    return page_file.with_suffix(".key.json")


def write(key: Key, out: Path) -> None:
    """Write page and key. Refuses to replace the key of another page: its answers would be lost."""
    where = key_of(out)
    if where.exists() and read_key(where).page != key.page:
        raise DataError(
            f"{where} is the key of another page, whose answers could not be read without it. "
            "Choose another --out, or move the two files away."
        )
    with atomic(where) as handle:
        handle.write(key.model_dump_json(indent=1) + "\n")
    with atomic(out) as handle:
        handle.write(page(key))


def read_key(file: Path) -> Key:
    if not file.is_file():
        raise DataError(f"{file}: no such key. `quip human make` writes it beside the page.")
    try:
        return Key.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{file}: not a key of `quip human make` ({first['msg']}).") from None
