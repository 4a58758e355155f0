"""Critic comparison on the gold pairs, with every debiasing method: `quip critics`.

The tuning half serves to choose a critic and to fit `debias`. The held-out half serves only to
report, as in the stage `audit`, so that no reported figure was used for a choice. Replies are kept
in the call store: a second run costs nothing, and an interrupted run continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quip.core.jsonl import read_rows
from quip.core.params import load
from quip.core.records import Critique, GoldPair
from quip.critics.comparison import gold_comparisons
from quip.critics.critic_kinds import ask
from quip.critics.critic_settings import ENDPOINT_KINDS, PANEL, CriticParams, parse, short_form
from quip.critics.debiasing import Debias, Method, debiased_preference, logit
from quip.critics.multiple_choice import measure_content_free
from quip.critics.panel import GOLD, WORDS, gold_half, regression
from quip.evaluation.critic_audit import audit_summary
from quip.llm.endpoints import endpoint
from quip.llm.requests import prompts

REWARD = Path("models/reward")
RESAMPLES, SEED = 10_000, 1
METHODS: tuple[Method, ...] = ("none", "probability", "log_odds", "content_free")
ONE_ORDER = ("none", "content_free")
DEFAULT_CRITICS = (
    *("mcp", "mcp:humor", "mcp:content"),
    *("mcp_reason", "mcp_reason:humor", "mcp_reason:content"),
    *("cloze", "cloze:humor", "cloze:content"),
    *("cloze:calibrated", "cloze:humor:calibrated", "cloze:content:calibrated"),
    *("panel", "learned"),
)


class CriticRow(NamedTuple):
    """One critic with one debiasing method: figures of critic.json, calls and tokens a pair."""

    critic: str
    method: str
    found: dict[str, Any]
    calls: float
    tokens: float


def compare_critics(
    names: Sequence[str], half: str, per_kind: int | None, length: bool = False
) -> tuple[list[CriticRow], dict[str, Debias]]:
    """One row per critic and debiasing method on one half of the gold pairs; on the tuning half
    also the fitted `debias` of each critic that asks an endpoint.

    `per_kind` limits the pairs of each kind. `length` adds one row per critic: log-odds over both
    orders and a length correction, fitted on as many pairs of the tuning half."""
    base, method = load("critic", CriticParams), load("debias", Debias).method
    gold = read_rows(GOLD, GoldPair)
    pairs = gold_half(gold, half, per_kind)
    rows, fits = [], {}
    for name in names:
        critic = parse(critic_spec(name), base)
        answers = ask(critic, REWARD, gold_comparisons(pairs), name)
        content_free = measure_content_free(critic)
        tokens = sum(
            float(answers.spent.get(key, 0)) for key in ("prompt_tokens", "completion_tokens")
        )
        panel_pairs = gold_half(gold, "tune", critic.panel.per_kind) if critic.kind == PANEL else []
        asked, call_count = len(pairs) + len(panel_pairs), calls_per_comparison(critic)
        for label in METHODS if critic.kind.startswith("mcp") else ("position-free",):
            debias = position_debias(label if label in METHODS else "log_odds", content_free)
            share = 0.5 if label in ONE_ORDER else 1.0
            found = audit_summary(pairs, answers.rows, debias, RESAMPLES, SEED)
            rows.append(
                CriticRow(
                    short_form(critic), label, found, share * call_count, share * tokens / asked
                )
            )
        if length and critic.kind in ENDPOINT_KINDS:
            tuning_pairs = gold_comparisons(gold_half(gold, "tune", per_kind))
            debias = fit_debias(
                ask(critic, REWARD, tuning_pairs, f"{name}, to be fitted").rows, "log_odds"
            )
            found = audit_summary(pairs, answers.rows, debias, RESAMPLES, SEED)
            each = tokens / len(pairs)
            rows.append(CriticRow(short_form(critic), "log_odds, length", found, call_count, each))
        if half == "tune" and critic.kind in ENDPOINT_KINDS:
            fits[short_form(critic)] = fit_debias(answers.rows, method, content_free)
    return rows, fits


def critic_spec(name: str) -> str:
    """The critic's short form of `name`; the name of a prompt alone means multiple choice."""
    return f"mcp/{name}" if (prompts.FOLDER / f"{name}.txt").is_file() and name != "cloze" else name


def position_debias(method: Any, content_free_p: float) -> Debias:
    """A `Debias` that corrects position bias alone."""
    return Debias(method=method, scale=1.0, per_word=0.0, content_free=content_free_p)


def calls_per_comparison(critic: CriticParams) -> int:
    """Calls per comparison: both orders of a multiple choice, both texts of a cloze."""
    if critic.kind == "cloze":
        return 4 if critic.calibrated else 2
    if critic.kind == "panel":
        members = (parse(one, critic) for one in critic.panel.signals if one != WORDS)
        return sum(calls_per_comparison(one) for one in members)
    if critic.kind == "learned":
        return 0
    return 2 * (1 if endpoint(critic.endpoint).logprobs else critic.samples)


def fit_debias(
    critiques: Sequence[Critique], method: Method, content_free_p: float | None = None
) -> Debias:
    """Fit `scale` and `per_word` by logistic regression (`quip.critics.panel.regression`)."""
    position = Debias(method=method, scale=1.0, per_word=0.0, content_free=content_free_p)
    rows = [
        (logit(p), float(len(c.a.split()) - len(c.b.split())))
        for c in critiques
        if (p := debiased_preference(c, position)) is not None
    ]
    scale, per_word = regression(np.array(rows))
    found = {"scale": round(float(scale), 3), "per_word": round(float(per_word), 4)}
    content_free_p = None if content_free_p is None else round(content_free_p, 4)
    return Debias(method=method, content_free=content_free_p, **found)


def comparison_table(rows: Sequence[CriticRow]) -> Iterator[str]:
    """The lines of a Markdown table, one row per critic and debiasing method."""
    yield "| critic | debiasing | agreement | Ag-H | Ag-C | PB | LB | calls | tokens | n |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        found = row.found
        estimates = [estimate_text(found["agreement"], found["ci95"])]
        estimates += [
            estimate_text(found[key]["agreement"], found[key]["ci95"]) if key in found else ""
            for key in ("ag_h", "ag_c")
        ]
        biases = [f"{found[key]:.2f}" for key in ("position_bias", "length_bias")]
        costs = [f"{row.calls:g}", f"{row.tokens:.0f}", str(found["n"])]
        yield f"| {' | '.join([f'`{row.critic}`', row.method, *estimates, *biases, *costs])} |"


def estimate_text(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
