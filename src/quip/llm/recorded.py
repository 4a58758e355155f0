"""Recorded endpoints: replies from a file, in place of an address.

`endpoints.NAME.replies` names a JSONL file under data/raw. A reply is found by what a call is
about, never by the words of a prompt, so that a file outlives a change of prompts. `quip calls
export --stage STAGE` writes such a file. No network, key, price or call store has a part in it.

teacher       {"literal", "paraphrases": [...]}; a row of fewer paraphrases than `teacher.n` also
              has "n": as many were asked for, and the teacher gave fewer
comparison    {"literal", "a", "b"}, `a` shown first, and either "p_first", the probability of `a`,
              or "text" and "top_logprobs" of the raw reply; "question" (humor, content) and
              "sample" where it is neither the overall question nor the only answer

Further fields are ignored. Literals with equal folds (`quip.core.text.fold`) are the same literal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from quip.core.jsonl import parse_row
from quip.core.text import fold, tidy
from quip.llm.costs import Ledger
from quip.llm.endpoints import Endpoint, describe, recording
from quip.llm.requests.chat import About, ModelReply, Request, Usage
from quip.llm.requests.protocols import LEAST
from quip.runtime.errors import DataError

SHOWN = 3
"""How many of the literals that are missing a message names."""


class TeacherRow(BaseModel):
    """What the teacher wrote for one literal."""

    literal: str = Field(min_length=1)
    paraphrases: list[str]
    n: int = 0

    @property
    def about(self) -> About:
        return About(self.literal, n=max(self.n, len(self.paraphrases)))

    def reply(self, about: About) -> ModelReply:
        """The first paraphrases as the numbered list that a teacher writes."""
        return ModelReply(text=numbered(self.paraphrases[: about.n]), finish_reason="stop")


class ComparisonRow(BaseModel):
    """What a critic or judge answered in one order."""

    literal: str
    a: str
    b: str
    question: str = "overall"
    sample: int = 0
    p_first: float | None = Field(default=None, ge=0, le=1)
    text: str | None = None
    top_logprobs: list[tuple[str, float]] | None = None

    @property
    def about(self) -> About:
        return About(
            self.literal, first=self.a, second=self.b, question=self.question, sample=self.sample
        )

    def reply(self, _: About) -> ModelReply:
        """The raw reply; of a probability one with the log-probabilities of both choices."""
        if self.p_first is None:
            text = self.text or ""
            return ModelReply(text=text, finish_reason="stop", top_logprobs=self.top_logprobs)
        both = [("1", log(self.p_first)), ("2", log(1 - self.p_first))]
        choice = "1" if self.p_first >= 0.5 else "2"
        return ModelReply(text=choice, finish_reason="stop", top_logprobs=both)


Row = TeacherRow | ComparisonRow
Place = tuple[str, str, str, str, int]


def place(about: About) -> Place:
    """Where a recording keeps the reply to what `about` says; all numbers of paraphrases share a
    place."""
    question = "teacher" if about.n else about.question
    return fold(about.literal), tidy(about.first), tidy(about.second), question, about.sample


class Recording:
    """The rows of a file. `rows` holds each by its place."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[Place, Row] = {}
        for row, where in read(file):
            if self.rows.setdefault(place(row.about), row) != row:
                raise DataError(f"{where}: another reply for {row.literal!r} stands above it.")

    def reply(self, about: About) -> ModelReply | None:
        """The recorded reply; None when there is none, or one of fewer paraphrases."""
        row = self.rows.get(place(about))
        return row.reply(about) if row is not None and row.about.n >= about.n else None

    def lack(self, missing: Sequence[About]) -> str:
        """What the file has not, as a sentence without its subject; `missing` is not empty."""
        first = missing[0]
        literals = list(dict.fromkeys(about.literal for about in missing))
        shown = ", ".join(map(repr, literals[:SHOWN]))
        more = f" and {len(literals) - SHOWN:,} more" if len(literals) > SHOWN else ""
        if not first.n:
            return f"lacks answers ({len(missing):,}) to comparisons about {shown}{more}"
        counts = {len(row.paraphrases) for row in map(self.taught, missing) if row}
        short = f", of some has only {max(counts)}" if counts else ""
        return f"lacks {first.n} paraphrases of literals ({len(literals):,}){short}: {shown}{more}"

    def taught(self, about: About) -> TeacherRow | None:
        row = self.rows.get(place(about))
        return row if isinstance(row, TeacherRow) else None

    def literals(self) -> int:
        """How many literals it holds paraphrases of."""
        return sum(isinstance(row, TeacherRow) for row in self.rows.values())


def read(file: Path) -> Iterator[tuple[Row, str]]:
    """(row, where it stands). Raises DataError with file and line."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{file}, line {number}"
            if line.strip():
                yield parse(line, where), where


def parse(line: str, where: str) -> Row:
    if '"paraphrases"' in line:
        taught = parse_row(line, TeacherRow, where)
        if not taught.about.n:
            raise DataError(f"{where}: no paraphrase; with 'n' it says that the teacher gave none.")
        return taught
    row = parse_row(line, ComparisonRow, where)
    if (row.p_first is None) == (row.text is None):
        raise DataError(f"{where}: a comparison needs either 'p_first' or 'text'.")
    return row


def answers(
    name: str, settings: Endpoint, requests: Iterable[Request], ledger: Ledger
) -> Iterator[ModelReply]:
    """The recorded replies, in the order of `requests`, each counted as stored.

    Raises DataError, before any is given, when the file lacks one.
    """
    known = Recording(recording(name, settings))
    asked = [about_of(request, name, settings) for request in requests]
    found = {about: known.reply(about) for about in asked}
    missing = [about for about in found if found[about] is None]
    if missing:
        raise DataError(
            f"{describe(name, settings)} {known.lack(missing)}. Add rows for them, or record them: "
            "run the stage with an endpoint that has a `base_url`, then `quip calls export`."
        )
    for _ in asked:
        ledger.row(Usage(), stored=True)
    print(f"{name}: {len(asked):,} replies from {known.file}")
    return (reply for about in asked if (reply := found[about]) is not None)


def about_of(request: Request, name: str, settings: Endpoint) -> About:
    if request.about is None:
        raise DataError(
            f"{describe(name, settings)} is a recording, which answers as teacher and as critic or "
            "judge of the kinds mcp and mcp_reason. Name an endpoint with `base_url` here."
        )
    return request.about


def numbered(texts: Iterable[str]) -> str:
    return "\n".join(f"{i}. {tidy(text)}" for i, text in enumerate(texts, start=1))


def log(p: float) -> float:
    return math.log(p) if p > 0 else LEAST
