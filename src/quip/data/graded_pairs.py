"""Graded pairs: files of text pairs that people graded, read as rows of one type (GradedPair).

The columns of a .jsonl, .json, .csv or .tsv file say which of four forms it has:

gold       `better`, `worse`: the gold pairs (data/raw/gold.jsonl), votes of `quip serve`, votes of
           the human kit; `half` says whether a pair is for tuning or for measuring
headlines  `original1`, `edit1`, `original2`, `edit2`, `label`, and optionally `meanGrade1`,
           `meanGrade2`: SemEval-2020 task 7, subtask 2 (Hossain et al. 2020). The edit replaces
           `<word/>`; the literal is the headline before the edit
labelled   `text_a`, `text_b`, `label`: a, b or tie (1, 2 or 0)
graded     `text_a`, `text_b`, `grade_a`, `grade_b`: a higher grade is better

`literal`, `id` and `half` are kept where a file has them; other columns are not read. Ties are left
out and counted, because a tie has no better text to learn or to measure.
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
    """Two texts, one of which people preferred.

    `literal` is "" where the file has none, and `half` None where the file has none. `grades` are
    the grades of `better` and `worse`. `source` is the file's name in params `graded`.
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
        """The difference of the grades; None without grades."""
        return None if self.grades is None else self.grades[0] - self.grades[1]


class File(NamedTuple):
    """The pairs of one file, and the number of ties left out."""

    pairs: list[GradedPair]
    ties: int


class UnlabelledPair(NamedTuple):
    """The literal and both texts of a row, in the order of the file."""

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
    pairs = [parse_pair(record, source) for record in records]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        raise DataError(
            f"{path}: every row is a tie. Add rows in which one text is better than the other."
        )
    return File(known, len(pairs) - len(known))


def parse_pair(record: Record, source: str) -> GradedPair | None:
    """The pair of one row; None for a tie. Raises DataError for a malformed row."""
    row, winner = read_texts(record), find_winner(record)
    if winner is None:
        return None
    if row.texts[0] == row.texts[1]:
        raise DataError(f"{record.where}: both texts are the same, but the row is not a tie.")
    grades = read_grades(record)
    if grades and grades[winner] < grades[1 - winner]:
        raise DataError(f"{record.where}: the label names the text with the lower grade.")
    return GradedPair(
        id=str(record.fields.get("id") or digest(source, record.where)[:12]),
        literal=row.literal,
        better=row.texts[winner],
        worse=row.texts[1 - winner],
        half=read_half(record),
        grades=(grades[winner], grades[1 - winner]) if grades else None,
        source=source,
    )


def read_texts(record: Record) -> UnlabelledPair:
    """The literal and both texts of a row of any form. Raises DataError for unknown columns."""
    if "original1" in record.fields:
        return headline_texts(record)
    for names in (("better", "worse"), ("text_a", "text_b")):
        if names[0] in record.fields:
            literal = tidy(str(record.fields.get("literal") or ""))
            return UnlabelledPair(
                literal, (read_text(record, names[0]), read_text(record, names[1]))
            )
    raise DataError(
        f"{record.where}: no form of graded pairs has the columns "
        f"{', '.join(map(str, record.fields))}. Wanted: better and worse; or text_a and text_b "
        "with label or grade_a and grade_b; or those of SemEval-2020 task 7."
    )


def headline_texts(record: Record) -> UnlabelledPair:
    """Both edited versions of one headline. Raises DataError when the two headlines differ."""
    plain, edited = zip(*(apply_edit(record, number) for number in "12"), strict=True)
    if plain[0] != plain[1]:
        raise DataError(f"{record.where}: original1 and original2 are different headlines.")
    return UnlabelledPair(plain[0], cast(tuple[str, str], edited))


def apply_edit(record: Record, number: str) -> tuple[str, str]:
    """The headline before and after its edit."""
    original, edit = read_text(record, f"original{number}"), read_text(record, f"edit{number}")
    if len(MARKED.findall(original)) != 1:
        raise DataError(f"{record.where}: original{number} does not mark one word as <word/>.")
    return tidy(MARKED.sub(r"\1", original)), tidy(MARKED.sub(lambda _: edit, original))


def find_winner(record: Record) -> int | None:
    """The index of the better text, 0 or 1; None for a tie."""
    if "better" in record.fields:
        return 0
    if "label" in record.fields:
        label = str(record.fields["label"]).strip().lower()
        if label not in SIDES:
            raise DataError(f"{record.where}: label is '{label}'. Wanted: {', '.join(SIDES)}.")
        return SIDES[label]
    grades = read_grades(record)
    if grades is None:
        raise DataError(
            f"{record.where}: no label, and no grade_a and grade_b, to say which text is better."
        )
    return None if grades[0] == grades[1] else int(grades[1] > grades[0])


def read_grades(record: Record) -> tuple[float, float] | None:
    """Both grades of a row; None without grades. Raises DataError when one is missing."""
    for first, second in GRADES:
        if first in record.fields or second in record.fields:
            return read_grade(record, first), read_grade(record, second)
    return None


def read_grade(record: Record, name: str) -> float:
    try:
        value = float(record.fields.get(name))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{record.where}: {name} is '{record.fields.get(name)}', not a number.")
    return value


def read_half(record: Record) -> Half | None:
    half = record.fields.get("half") or None
    if half not in (None, "tune", "held_out"):
        raise DataError(f"{record.where}: half is '{half}'. Wanted: tune, held_out or nothing.")
    return cast(Half | None, half)


def read_text(record: Record, name: str) -> str:
    value = record.fields.get(name)
    found = tidy(value) if isinstance(value, str) else ""
    if not found:
        raise DataError(f"{record.where}: {name} is missing or empty.")
    return found


def tuning_pairs(pairs: Sequence[GradedPair]) -> list[GradedPair]:
    """The pairs a critic may learn from: all but the held-out half."""
    return [pair for pair in pairs if pair.half != "held_out"]


def evaluation_pairs(pairs: Sequence[GradedPair]) -> list[GradedPair]:
    """The pairs a critic may be measured on: all but the tuning half."""
    return [pair for pair in pairs if pair.half != "tune"]


def assign_halves(pairs: Sequence[GradedPair]) -> Iterator[GradedPair]:
    """The pairs, each with a half: its own, else one by a digest of its literal.

    All pairs of one literal get the same half, for learning or for measuring, as votes do.
    """
    for pair in pairs:
        key = digest(pair.literal or pair.id)
        half: Half = "tune" if int(key[:8], 16) % 2 else "held_out"
        yield pair if pair.half else pair.model_copy(update={"half": half})
