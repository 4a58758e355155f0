"""Splits: the assignment of literals to train, val, test and ood."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from quip.core.params import Section
from quip.core.text import digest
from quip.data.sources import SourceLiteral

# The order in which splits keep a text that several hold: evaluation splits before train.
KEEPERS = ("test", "ood", "val", "train")


class Limit(Section):
    """The largest number of literals in each split; None is no limit."""

    train: int | None = Field(ge=1)
    val: int | None = Field(ge=1)
    test: int | None = Field(ge=1)
    ood: int | None = Field(ge=1)


class Fractions(Section):
    """The shares of val and test where the source has no splits; the rest is train."""

    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def leave_room_to_train(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must stay below 1")
        return self


class Params(Section):
    """Section `prepare`."""

    source: str
    ood_source: str
    column: str | None
    ood_column: str | None
    limit: Limit
    min_words: int = Field(ge=1)
    max_words: int = Field(ge=1)
    near_duplicate: float = Field(gt=0, le=100)
    fractions: Fractions
    seed: int


def assign_split(row: SourceLiteral, settings: Params) -> SourceLiteral:
    """The row with its published split, else one by digest of (seed, id); chats stay whole."""
    if row.split:
        return row
    share = int(digest(settings.seed, "split", row.chat or row.id)[:12], 16) / 16**12
    fractions = settings.fractions
    if share < fractions.test:
        return replace(row, split="test")
    return replace(row, split="val" if share < fractions.test + fractions.val else "train")


def keeper_order(row: SourceLiteral, seed: int) -> tuple[int, str, str]:
    """The sort key of rows: by KEEPERS, then shuffled by digest; equal ids by text."""
    return KEEPERS.index(row.split or ""), digest(seed, row.id), row.text
