"""Which literal goes into which split."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from quip.core.params import Section
from quip.core.text import digest
from quip.data.sources import Found

# Which split keeps a text that several hold: an evaluation must never lose to training data.
KEEPERS = ("test", "ood", "val", "train")


class Limit(Section):
    train: int | None = Field(ge=1)
    val: int | None = Field(ge=1)
    test: int | None = Field(ge=1)
    ood: int | None = Field(ge=1)


class Fractions(Section):
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def leave_room_to_train(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must stay below 1")
        return self


class Params(Section):
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


def assign(row: Found, settings: Params) -> Found:
    """Give a row without a published split one, by digest of (seed, id); chats stay whole."""
    if row.split:
        return row
    share = int(digest(settings.seed, "split", row.chat or row.id)[:12], 16) / 16**12
    fractions = settings.fractions
    if share < fractions.test:
        return replace(row, split="test")
    return replace(row, split="val" if share < fractions.test + fractions.val else "train")


def order(row: Found, seed: int) -> tuple[int, str, str]:
    """Best keeper first, then shuffled by digest; the text only decides between equal ids."""
    return KEEPERS.index(row.split or ""), digest(seed, row.id), row.text
