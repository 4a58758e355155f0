"""A reality check: how far critics agree with pairs that people graded (params `audit.extra`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.core.records import Critique, GoldPair
from quip.core.text import digest
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_kinds import LEARNED, CriticParams
from quip.critics.debiasing import Debias, calibrated_preference
from quip.data.graded_pairs import GradedPair
from quip.evaluation.critic_audit import agreement, audit_summary
from quip.evaluation.metrics.bootstrap import clustered

Ask = Callable[[CriticParams, Sequence[Comparison], str], Answers]


def agreements(
    path: str | Path,
    critics: Mapping[str, tuple[CriticParams, Debias]],
    ask: Ask,
    most: int | None,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The content of critic.json's key `extra`: by file and critic the audit's figures, and a line
    printed for each. Beside it, by file and critic, what the calls cost.

    `path` is what the stage `pairs` wrote; `critics` are those of the audit, by name, each with how
    its answers are debiased; `most` is the number of pairs of a file put to critics that cost calls
    (None: all; the same ones to all of them)."""
    found: dict[str, dict[str, Any]] = {}
    spent: dict[str, dict[str, Any]] = {}
    for source, pairs in read(path).items():
        found[source], spent[source] = {}, {}
        for name, (critic, debias) in critics.items():
            asked = pairs if critic.kind == LEARNED else subsample(pairs, most)
            answers = ask(critic, comparisons(asked), f"audit ({name}, {source})")
            one = summary(asked, answers.rows, debias, resamples, seed)
            found[source][name], spent[source][name] = one, answers.spent
            print(line(source, name, one))
    return found, spent


def read(path: str | Path) -> dict[str, list[GradedPair]]:
    """The pairs to measure on, by the name of their file in params `graded`."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return {name: [GradedPair(**row) for row in rows] for name, rows in found.items()}


def subsample(pairs: Sequence[GradedPair], most: int | None) -> list[GradedPair]:
    """At most `most` pairs, drawn by the digest of their ids, in the order of the file."""
    chosen = {pair.id for pair in sorted(pairs, key=lambda pair: digest(pair.id))[:most]}
    return [pair for pair in pairs if pair.id in chosen]


def comparisons(pairs: Sequence[GradedPair]) -> list[Comparison]:
    """Graded pairs as comparisons of `better` (a) with `worse` (b)."""
    return [
        Comparison(p.id, "gold", p.literal, "better", "worse", p.better, p.worse) for p in pairs
    ]


def summary(
    pairs: Sequence[GradedPair],
    critiques: Sequence[Critique],
    debias: Debias,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The figures of `audit_summary`, with an interval that resamples literals: pairs of one
    literal (as the edits of one headline) do not vary independently."""
    gold = [
        GoldPair(
            id=p.id,
            kind="graded",
            half="held_out",
            literal=p.literal,
            better=p.better,
            worse=p.worse,
        )
        for p in pairs
    ]
    found = audit_summary(gold, critiques, debias, resamples, seed)
    scores: dict[str, list[float]] = {}
    for pair, critique in zip(pairs, critiques, strict=True):
        value = calibrated_preference(critique, debias)
        if value is not None:
            scores.setdefault(pair.literal or pair.id, []).append(agreement(value))
    kept = {key: value for key, value in found.items() if key != "by_kind"}
    interval = clustered(list(scores.values()), resamples, seed)
    return {**kept, "ci95": interval, "literals": len(scores)}


def line(source: str, name: str, found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return (
        f"audit: {name}: agreement with people {found['agreement']:.3f} [{low:.3f}, {high:.3f}] on "
        f"{found['n']} pairs of {source} ({found['literals']} literals), position bias "
        f"{found['position_bias']:.3f}, unparsed {found['unparsed_pairs']}"
    )
