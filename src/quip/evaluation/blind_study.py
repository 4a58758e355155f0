"""Blind study: pairs of texts by arms and teacher, written as one HTML page for people to judge.

The page (`voting_page.html` with the pairs inserted) works as a file, without a server or network.
It shows sentences and texts in random order and names no writer; the key file maps texts to
writers.
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


class BlindPair(Row):
    """Two texts for one literal, in the order of the page, and their writers (`names`)."""

    id: str
    input: str
    literal: str
    texts: tuple[str, str]
    names: tuple[str, str]


class StudyKey(Row):
    """The key file of a page: the writer of each text.

    `pairs` are shown to people; `same` are pairs of equal texts, which count as ties and are not
    shown. `sides` are the comparisons (a, b); results are those of a against b."""

    page: str
    split: Split
    sides: list[tuple[str, str]]
    pairs: list[BlindPair]
    same: list[BlindPair]


def arm_pairs(arms: Sequence[str], duels: bool) -> list[tuple[str, str]]:
    """Comparisons (a, b): every arm against the teacher; with `duels` also each later arm against
    each earlier one."""
    against = [(arm, TEACHER) for arm in arms]
    return against + [(b, a) for a, b in combinations(arms, 2)] if duels else against


def read_texts(
    arms: Sequence[str], split: Split, responses: Path, references: Path
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """({input: literal}, {writer: {input: text}}) for the inputs that every writer answered.

    Raises DataError when there is no such input."""
    teacher = [row for row in read_rows(references, Reference) if row.split == split]
    literals = {row.input: row.literal for row in teacher}
    texts = {TEACHER: {row.input: row.paraphrases[0] for row in teacher}}
    for arm in arms:
        rows = read_rows(responses / f"{arm}.jsonl", Response)
        texts[arm] = {row.input: row.text for row in rows if row.split == split}
    shared = {key: text for key, text in literals.items() if all(key in t for t in texts.values())}
    if not shared:
        raise DataError(
            f"no input of split '{split}' has an answer by every arm ({', '.join(arms)}) and by "
            "the teacher. Choose another split (respond.splits lists the answered ones)."
        )
    return shared, texts


def draw_pairs(
    literals: Mapping[str, str],
    texts: Mapping[str, Mapping[str, str]],
    compared: Sequence[tuple[str, str]],
    split: Split,
    n: int,
    seed: int,
) -> StudyKey:
    """Draw the pairs of a page: at most `n` inputs, the same in every comparison.

    In each comparison half of the pairs show side a first; then all pairs are shuffled. Raises
    DataError when every pair has two equal texts."""
    inputs = sorted(literals, key=lambda key: digest(seed, key))[:n]
    rng = Random(digest("human", seed))
    drawn = []
    for a, b in compared:
        rng.shuffle(inputs)
        for index, key in enumerate(inputs):
            names = (a, b) if index % 2 else (b, a)
            drawn.append((key, names, (texts[names[0]][key], texts[names[1]][key])))
    rng.shuffle(drawn)
    pairs = [
        BlindPair(id=f"p{number:03}", input=key, literal=literals[key], texts=both, names=names)
        for number, (key, names, both) in enumerate(drawn, start=1)
    ]
    shown = [pair for pair in pairs if pair.texts[0] != pair.texts[1]]
    if not shown:
        raise DataError("all compared texts are equal, so there is nothing to ask.")
    page = digest(*(part for pair in shown for part in shown_fields(pair).values()))[:16]
    same = [pair for pair in pairs if pair.texts[0] == pair.texts[1]]
    return StudyKey(page=page, split=split, sides=list(compared), pairs=shown, same=same)


def shown_fields(pair: BlindPair) -> dict[str, Any]:
    """The fields of a pair that a person may see."""
    return {"id": pair.id, "literal": pair.literal, "texts": list(pair.texts)}


def render_page(key: StudyKey) -> str:
    """The HTML page: the template with its pairs; "<" is escaped, so no text ends the script."""
    shown = {"page": key.page, "pairs": [shown_fields(pair) for pair in key.pairs]}
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    template = files("quip.evaluation").joinpath("voting_page.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data)


def key_path(page_file: Path) -> Path:
    """The path of the key file, beside the page: page.html -> page.key.json."""
    return page_file.with_suffix(".key.json")


def write_study(key: StudyKey, out: Path) -> None:
    """Write page and key. Raises DataError when the key of another page would be overwritten: the
    answers to that page could no longer be read."""
    key_file = key_path(out)
    if key_file.exists() and read_key(key_file).page != key.page:
        raise DataError(
            f"{key_file} is the key of another page; its answers cannot be read without it. "
            "Choose another --out, or move both files away."
        )
    with atomic(key_file) as handle:
        handle.write(key.model_dump_json(indent=1) + "\n")
    with atomic(out) as handle:
        handle.write(render_page(key))


def read_key(file: Path) -> StudyKey:
    """Read a key file. Raises DataError when it is missing or no key."""
    if not file.is_file():
        raise DataError(f"{file}: no such key file. `quip human make` writes it beside the page.")
    try:
        return StudyKey.model_validate(read_json(file))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{file}: not a key of `quip human make` ({first['msg']}).") from None
