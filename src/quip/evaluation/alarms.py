"""Collapse alarms: limits in params.yaml on the text measures of an arm. Pure.

A judge reads one text at a time and cannot see a collapse: one phrase for everything, copies of
the input, texts that grow with every round. Variety and self-similarity depend on the inputs, so
their limits are relative to the teacher on the same inputs.
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
    """Highest share of texts that copy their literal."""
    stock_phrase: float = Field(ge=0, le=1)
    """Highest share of texts that contain the most common 4-gram, unless the teacher has more."""
    distinct_2: float = Field(ge=0)
    """Lowest distinct-2 as a multiple of the teacher's."""
    self_similarity: float = Field(ge=0)
    """Highest self-similarity minus the teacher's."""
    meaning: float = Field(ge=0, le=1)
    """Lowest mean cosine with the literal."""
    length_drift: tuple[float, float]
    """Lowest and highest ratio of mean words to those of the base arm, after any round."""


class Alarm(NamedTuple):
    """A measure beyond its limit."""

    value: float
    limit: float


def length_drift(
    answers: tuple[Sequence[str], Sequence[str]], rounds: Sequence[tuple[Sequence[str], ...]]
) -> list[dict[str, Any]]:
    """Mean words of an arm's texts divided by those of the base arm, round by round.

    `rounds` holds (samples of the student after the round, samples of the base arm) for every round
    but the last; `answers` holds the final answers of both arms. Returns one entry per round:
    {"round", "of": "samples" or "answers", "ratio"}.
    """
    pairs = [("samples", *pair) for pair in rounds] + [("answers", *answers)]
    return [
        {"round": number, "of": what, "ratio": mean_words(own) / max(1.0, mean_words(other))}
        for number, (what, own, other) in enumerate(pairs, start=1)
    ]


def raised_alarms(
    cell: Mapping[str, Any],
    teacher: Mapping[str, Any],
    drifts: Sequence[Mapping[str, Any]],
    limits: Limits,
) -> dict[str, dict[str, float]]:
    """{measure: {"value", "limit"}} for the text measures of one arm that are beyond their limits.

    `cell` and `teacher` are cells of `texts` in wtr.json on the same split.
    """
    ratios = [entry["ratio"] for entry in drifts] or [1.0]
    shortest, longest = limits.length_drift
    upper = {
        "copy_rate": Alarm(cell["copy_rate"], limits.copy_rate),
        "stock_phrase": Alarm(
            cell["top_4gram_share"], max(limits.stock_phrase, teacher["top_4gram_share"])
        ),
        "self_similarity": Alarm(
            cell["self_similarity"], teacher["self_similarity"] + limits.self_similarity
        ),
        "length_drift": Alarm(max(ratios), longest),
    }
    lower = {
        "distinct_2": Alarm(cell["distinct_2"], limits.distinct_2 * teacher["distinct_2"]),
        "meaning": Alarm(cell["meaning"], limits.meaning),
        "length_drift": Alarm(min(ratios), shortest),
    }
    exceeded = {name: alarm for name, alarm in lower.items() if alarm.value < alarm.limit}
    exceeded |= {name: alarm for name, alarm in upper.items() if alarm.value > alarm.limit}
    return {name: alarm._asdict() for name, alarm in exceeded.items()}
