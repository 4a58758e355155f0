"""Files of pairs that people graded, whatever their form, as rows of one form (GradedPair).

Four forms are known by their columns, in .jsonl, .json, .csv and .tsv files:

gold       `better`, `worse`: our gold pairs (data/raw/gold.jsonl), votes of `quip serve`, the human
           kit's; `half` says what a pair may be used for
headlines  `original1`, `edit1`, `original2`, `edit2`, `label`, and `meanGrade1`, `meanGrade2` where
           there are any: SemEval-2020 task 7, subtask 2 (Hossain et al. 2020). The edit stands in
           place of `<word/>`, the literal is the headline before it
labelled   `text_a`, `text_b`, `label`: a, b or tie (1, 2 or 0)
graded     `text_a`, `text_b`, `grade_a`, `grade_b`: more is better

`literal`, `id` and `half` are kept where they are given, further columns are not read. A tie
teaches nothing and measures nothing: it is left out and counted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

from quip.core.records import Row
from quip.core.text import digest, tidy
from quip.data.readers import Record, read_table
from quip.runtime.errors import DataError

Half = Literal["tune", "held_out"]
MARKED = re.compile(r"<([^<>]*)/>")
"""The word of a headline that an edit replaces."""
SIDES = {"1": 0, "2": 1, "a": 0, "b": 1, "0": None, "tie": None}
GRADES = (("meanGrade1", "meanGrade2"), ("grade_a", "grade_b"))


class GradedPair(Row):
    """Two texts of which people liked one better.

    `literal` is "" where the texts say nothing in common; `half` None where the file does not say;
    `grades` are those of `better` and `worse`; `source` is the file's name in params `graded`.
    """

    id: str
    literal: str
    better: str
    worse: str
    half: Half | None = None
    grades: tuple[float, float] | None = None
    source: str = ""

    @property
    def gap(self) -> float | None:
        """By how much the grades differ; None without grades."""
        return None if self.grades is None else self.grades[0] - self.grades[1]


class File(NamedTuple):
    """The pairs of one file, and how many ties were left out."""

    pairs: list[GradedPair]
    ties: int


class Shown(NamedTuple):
    """A row before it is known which text won: the literal and both texts."""

    literal: str
    texts: tuple[str, str]


def read(path: str | Path, source: str = "") -> File:
    """The graded pairs of one file.

    Raises DataError with file and line when the file is missing, empty, of no known form or has a
    malformed row.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file of graded pairs.")
    records = read_table(str(path), path.read_bytes())
    pairs = [pair_of(record, source) for record in records]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        raise DataError(f"{path}: every row is a tie; there is nothing to learn or to measure.")
    return File(known, len(pairs) - len(known))


def pair_of(record: Record, source: str) -> GradedPair | None:
    """One row, None when it is a tie."""
    shown, winner = shown_of(record), winner_of(record)
    if winner is None:
        return None
    if shown.texts[0] == shown.texts[1]:
        raise DataError(f"{record.where}: both texts are the same, yet one is the better.")
    grades = grades_of(record)
    if grades and grades[winner] < grades[1 - winner]:
        raise DataError(f"{record.where}: the label names the text with the lower grade.")
    return GradedPair(
        id=str(record.fields.get("id") or digest(source, record.where)[:12]),
        literal=shown.literal,
        better=shown.texts[winner],
        worse=shown.texts[1 - winner],
        half=half_of(record),
        grades=(grades[winner], grades[1 - winner]) if grades else None,
        source=source,
    )


def shown_of(record: Record) -> Shown:
    if "original1" in record.fields:
        return headlines(record)
    for names in (("better", "worse"), ("text_a", "text_b")):
        if names[0] in record.fields:
            literal = tidy(str(record.fields.get("literal") or ""))
            return Shown(literal, (text(record, names[0]), text(record, names[1])))
    raise DataError(
        f"{record.where}: no form of graded pairs has the columns "
        f"{', '.join(map(str, record.fields))}. Wanted: better and worse; or text_a and text_b "
        "with label or grade_a and grade_b; or those of SemEval-2020 task 7."
    )


def headlines(record: Record) -> Shown:
    """Both edits of one headline. Raises DataError when they belong to two."""
    plain, edited = zip(*(edits(record, number) for number in "12"), strict=True)
    if plain[0] != plain[1]:
        raise DataError(f"{record.where}: original1 and original2 are two headlines.")
    return Shown(plain[0], cast(tuple[str, str], edited))


def edits(record: Record, number: str) -> tuple[str, str]:
    """A headline as it was and with its edit."""
    original, edit = text(record, f"original{number}"), text(record, f"edit{number}")
    if len(MARKED.findall(original)) != 1:
        raise DataError(f"{record.where}: original{number} does not mark one word as <word/>.")
    return tidy(MARKED.sub(r"\1", original)), tidy(MARKED.sub(lambda _: edit, original))


def winner_of(record: Record) -> int | None:
    """0 when the first text won, 1 when the second did, None when neither."""
    if "better" in record.fields:
        return 0
    if "label" in record.fields:
        label = str(record.fields["label"]).strip().lower()
        if label not in SIDES:
            raise DataError(f"{record.where}: label is '{label}'. Wanted: {', '.join(SIDES)}.")
        return SIDES[label]
    grades = grades_of(record)
    if grades is None:
        raise DataError(f"{record.where}: neither label nor grade_a and grade_b say which won.")
    return None if grades[0] == grades[1] else int(grades[1] > grades[0])


def grades_of(record: Record) -> tuple[float, float] | None:
    for first, second in GRADES:
        if first in record.fields or second in record.fields:
            return grade(record, first), grade(record, second)
    return None


def grade(record: Record, name: str) -> float:
    try:
        value = float(record.fields.get(name))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{record.where}: {name} is '{record.fields.get(name)}', not a number.")
    return value


def half_of(record: Record) -> Half | None:
    half = record.fields.get("half") or None
    if half not in (None, "tune", "held_out"):
        raise DataError(f"{record.where}: half is '{half}'. Wanted: tune, held_out or nothing.")
    return cast(Half | None, half)


def text(record: Record, name: str) -> str:
    value = record.fields.get(name)
    found = tidy(value) if isinstance(value, str) else ""
    if not found:
        raise DataError(f"{record.where}: {name} is missing or empty.")
    return found


def to_learn(pairs: Sequence[GradedPair]) -> list[GradedPair]:
    """The pairs a critic may learn from: all but the held-out half."""
    return [pair for pair in pairs if pair.half != "held_out"]


def to_measure(pairs: Sequence[GradedPair]) -> list[GradedPair]:
    """The pairs a critic may be measured on: all but the tuning half."""
    return [pair for pair in pairs if pair.half != "tune"]


def by_literal(pairs: Sequence[GradedPair]) -> Iterator[GradedPair]:
    """Pairs of a file without halves, with the half that follows from the literal, so that all
    pairs of one literal serve either for learning or for measuring (as votes do)."""
    for pair in pairs:
        key = digest(pair.literal or pair.id)
        half: Half = "tune" if int(key[:8], 16) % 2 else "held_out"
        yield pair if pair.half else pair.model_copy(update={"half": half})
