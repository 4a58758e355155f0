"""Collapse alarms: limits of params.yaml that mark an arm whose texts went wrong. Pure.

A judge reads one text at a time and sees no collapse: one phrase for everything, copies of the
input, texts that grow with every round. What the inputs themselves decide (how varied texts can
be, how alike they are) is measured against the teacher on the same inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import Field

from quip.core.params import Section
from quip.evaluation.metrics.text_metrics import mean_words


class Limits(Section):
    """Section `alarms`."""

    copy_rate: float = Field(ge=0, le=1)
    """Share of texts that copy their literal, at most."""
    stock_phrase: float = Field(ge=0, le=1)
    """Share of texts that hold the commonest four words, at most, where the teacher has less."""
    distinct_2: float = Field(ge=0)
    """distinct-2 over the teacher's, at least."""
    self_similarity: float = Field(ge=0)
    """Self-similarity less the teacher's, at most."""
    meaning: float = Field(ge=0, le=1)
    """Mean cosine with the literal, at least."""
    length_drift: tuple[float, float]
    """Words over those of the arm to beat, after any round: at least, at most."""


class Alarm(NamedTuple):
    """What went past its limit."""

    value: float
    limit: float


def drift(
    answers: tuple[Sequence[str], Sequence[str]], rounds: Sequence[tuple[Sequence[str], ...]]
) -> list[dict[str, Any]]:
    """Words of an arm's texts over those of the arm to beat, round by round.

    `rounds` holds (samples of the student after the round, samples of the arm to beat) of every
    round but the last; `answers` its final answers and the other's. One entry a round:
    {"round", "of": "samples" or "answers", "ratio"}.
    """
    pairs = [("samples", *pair) for pair in rounds] + [("answers", *answers)]
    return [
        {"round": number, "of": what, "ratio": mean_words(own) / max(1.0, mean_words(other))}
        for number, (what, own, other) in enumerate(pairs, start=1)
    ]


def tripped(
    cell: Mapping[str, Any],
    teacher: Mapping[str, Any],
    drifts: Sequence[Mapping[str, Any]],
    limits: Limits,
) -> dict[str, dict[str, float]]:
    """{measure: {"value", "limit"}} of one arm's text measures that are past their limits.

    `cell` and `teacher` are cells of `texts` in wtr.json on the same split.
    """
    ratios = [entry["ratio"] for entry in drifts] or [1.0]
    shortest, longest = limits.length_drift
    most = {
        "copy_rate": Alarm(cell["copy_rate"], limits.copy_rate),
        "stock_phrase": Alarm(
            cell["top_4gram_share"], max(limits.stock_phrase, teacher["top_4gram_share"])
        ),
        "self_similarity": Alarm(
            cell["self_similarity"], teacher["self_similarity"] + limits.self_similarity
        ),
        "length_drift": Alarm(max(ratios), longest),
    }
    least = {
        "distinct_2": Alarm(cell["distinct_2"], limits.distinct_2 * teacher["distinct_2"]),
        "meaning": Alarm(cell["meaning"], limits.meaning),
        "length_drift": Alarm(min(ratios), shortest),
    }
    past = {name: alarm for name, alarm in least.items() if alarm.value < alarm.limit}
    past |= {name: alarm for name, alarm in most.items() if alarm.value > alarm.limit}
    return {name: alarm._asdict() for name, alarm in past.items()}
