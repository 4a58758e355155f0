"""Comparison: two texts for one literal, and the answers of a critic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from quip.core.records import Critique, GoldPair, Split


class Comparison(NamedTuple):
    """Two texts to compare for one literal, and their writers (`name_a`, `name_b`)."""

    input: str
    split: Split | str
    literal: str
    name_a: str
    name_b: str
    a: str
    b: str


class Answers(NamedTuple):
    """Critiques in the order of the pairs, and the ledger of their calls."""

    rows: list[Critique]
    spent: dict[str, float | str]


def gold_comparisons(pairs: Sequence[GoldPair]) -> list[Comparison]:
    """Gold pairs as comparisons of `better` (a) with `worse` (b)."""
    return [
        Comparison(p.id, "gold", p.literal, "better", "worse", p.better, p.worse) for p in pairs
    ]
