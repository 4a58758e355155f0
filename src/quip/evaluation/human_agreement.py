"""Agreement of critics with pairs that people graded (params `audit.extra`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.core.records import Critique, GoldPair
from quip.core.text import digest
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_settings import LEARNED, CriticParams
from quip.critics.debiasing import Debias, calibrated_preference
from quip.data.graded_pairs import GradedPair
from quip.evaluation.critic_audit import agreement, audit_summary
from quip.evaluation.metrics.bootstrap import clustered_interval

AskCritic = Callable[[CriticParams, Sequence[Comparison], str], Answers]


def measure_agreement(
    path: str | Path,
    critics: Mapping[str, tuple[CriticParams, Debias]],
    ask: AskCritic,
    max_pairs: int | None,
    resamples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Measure every critic on every file and print one line for each.

    Returns the content of the key `extra` of critic.json, {file: {critic: figures}}, and the
    ledgers of the calls, {file: {critic: ledger}}. `path` is the output of the stage `pairs`;
    `critics` are those of the audit by name, each with its debiasing. Critics that cost calls are
    asked about the same `max_pairs` pairs of a file (None: all)."""
    found: dict[str, dict[str, Any]] = {}
    spent: dict[str, dict[str, Any]] = {}
    for source, pairs in read_graded_pairs(path).items():
        found[source], spent[source] = {}, {}
        for name, (critic, debias) in critics.items():
            asked = pairs if critic.kind == LEARNED else subsample(pairs, max_pairs)
            answers = ask(critic, graded_comparisons(asked), f"audit ({name}, {source})")
            figures = agreement_summary(asked, answers.rows, debias, resamples, seed)
            found[source][name], spent[source][name] = figures, answers.spent
            print(summary_line(source, name, figures))
    return found, spent


def read_graded_pairs(path: str | Path) -> dict[str, list[GradedPair]]:
    """{name of the file in params `graded`: pairs to measure on}."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    return {name: [GradedPair(**row) for row in rows] for name, rows in found.items()}


def subsample(pairs: Sequence[GradedPair], max_pairs: int | None) -> list[GradedPair]:
    """At most `max_pairs` pairs, those with the smallest id digests, in file order."""
    chosen = {pair.id for pair in sorted(pairs, key=lambda pair: digest(pair.id))[:max_pairs]}
    return [pair for pair in pairs if pair.id in chosen]


def graded_comparisons(pairs: Sequence[GradedPair]) -> list[Comparison]:
    """Graded pairs as comparisons of `better` (a) with `worse` (b)."""
    return [
        Comparison(p.id, "gold", p.literal, "better", "worse", p.better, p.worse) for p in pairs
    ]


def agreement_summary(
    pairs: Sequence[GradedPair],
    critiques: Sequence[Critique],
    debias: Debias,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The figures of `audit_summary`, with an interval over literals instead of pairs: pairs of one
    literal, such as the edits of one headline, are not independent."""
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
    interval = clustered_interval(list(scores.values()), resamples, seed)
    return {**kept, "ci95": interval, "literals": len(scores)}


def summary_line(source: str, name: str, found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return (
        f"audit: {name}: agreement with people {found['agreement']:.3f} [{low:.3f}, {high:.3f}] on "
        f"{found['n']} pairs of {source} ({found['literals']} literals), position bias "
        f"{found['position_bias']:.3f}, unparsed {found['unparsed_pairs']}"
    )
