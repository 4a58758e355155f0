"""Critics compared on the gold pairs, each with every debiasing: `quip critics`.

Choosing among critics and fitting `debias` belong to the tuning half; the held-out half is for
looking, as the stage `audit` does, so that the figures it reports were not chosen for. Replies are
in the call store: asking again costs nothing, and a table that was cut off goes on.
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
from quip.critics.critic import ask
from quip.critics.critic_kinds import ASKED, PANEL, CriticParams, parse, short_form
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
COMPARED = (
    *("mcp", "mcp:humor", "mcp:content"),
    *("mcp_reason", "mcp_reason:humor", "mcp_reason:content"),
    *("cloze", "cloze:humor", "cloze:content"),
    *("cloze:calibrated", "cloze:humor:calibrated", "cloze:content:calibrated"),
    *("panel", "learned"),
)


class Row(NamedTuple):
    """One critic with one debiasing: figures as in critic.json, and calls and tokens a pair."""

    critic: str
    method: str
    found: dict[str, Any]
    calls: float
    tokens: float


def measure(
    names: Sequence[str], half: str, per_kind: int | None, length: bool = False
) -> tuple[list[Row], dict[str, Debias]]:
    """A row for each critic and debiasing on one half of the gold pairs; on the tuning half also
    the numbers of `debias` for each critic that has them, fitted. With `length` one more row: both
    orders and the length, by numbers fitted on as many pairs of the tuning half."""
    base, method = load("critic", CriticParams), load("debias", Debias).method
    gold = read_rows(GOLD, GoldPair)
    pairs = gold_half(gold, half, per_kind)
    rows, fits = [], {}
    for name in names:
        critic = parse(spec(name), base)
        answers = ask(critic, REWARD, gold_comparisons(pairs), name)
        lean = measure_content_free(critic)
        tokens = sum(
            float(answers.spent.get(key, 0)) for key in ("prompt_tokens", "completion_tokens")
        )
        lessons = gold_half(gold, "tune", critic.panel.per_kind) if critic.kind == PANEL else []
        asked, both = len(pairs) + len(lessons), calls(critic)
        for one in METHODS if critic.kind.startswith("mcp") else ("position-free",):
            used = raw(one if one in METHODS else "log_odds", lean)
            share = 0.5 if one in ONE_ORDER else 1.0
            found = audit_summary(pairs, answers.rows, used, RESAMPLES, SEED)
            rows.append(Row(short_form(critic), one, found, share * both, share * tokens / asked))
        if length and critic.kind in ASKED:
            taught = gold_comparisons(gold_half(gold, "tune", per_kind))
            used = fit(ask(critic, REWARD, taught, f"{name}, to be fitted").rows, "log_odds")
            found = audit_summary(pairs, answers.rows, used, RESAMPLES, SEED)
            each = tokens / len(pairs)
            rows.append(Row(short_form(critic), "log_odds, length", found, both, each))
        if half == "tune" and critic.kind in ASKED:
            fits[short_form(critic)] = fit(answers.rows, method, lean)
    return rows, fits


def spec(name: str) -> str:
    """A prompt's name alone is that of a multiple choice."""
    return f"mcp/{name}" if (prompts.FOLDER / f"{name}.txt").is_file() and name != "cloze" else name


def raw(method: Any, lean: float) -> Debias:
    """A debiasing of position alone."""
    return Debias(method=method, scale=1.0, per_word=0.0, content_free=lean)


def calls(critic: CriticParams) -> int:
    """Calls of one comparison with both orders; of cloze, both texts."""
    if critic.kind == "cloze":
        return 4 if critic.calibrated else 2
    if critic.kind == "panel":
        members = (parse(one, critic) for one in critic.panel.signals if one != WORDS)
        return sum(calls(one) for one in members)
    if critic.kind == "learned":
        return 0
    return 2 * (1 if endpoint(critic.endpoint).logprobs else critic.samples)


def fit(critiques: Sequence[Critique], method: Method, lean: float | None = None) -> Debias:
    """`scale` and `per_word` by logistic regression (`quip.critics.panel.regression`)."""
    position = Debias(method=method, scale=1.0, per_word=0.0, content_free=lean)
    rows = [
        (logit(p), float(len(c.a.split()) - len(c.b.split())))
        for c in critiques
        if (p := debiased_preference(c, position)) is not None
    ]
    scale, per_word = regression(np.array(rows))
    found = {"scale": round(float(scale), 3), "per_word": round(float(per_word), 4)}
    lean = None if lean is None else round(lean, 4)
    return Debias(method=method, content_free=lean, **found)


def table(rows: Sequence[Row]) -> Iterator[str]:
    """A table in Markdown, one line a critic and debiasing."""
    yield "| critic | debiasing | agreement | Ag-H | Ag-C | PB | LB | calls | tokens | n |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        found = row.found
        shares = [spanned(found["agreement"], found["ci95"])]
        shares += [
            spanned(found[key]["agreement"], found[key]["ci95"]) if key in found else ""
            for key in ("ag_h", "ag_c")
        ]
        biases = [f"{found[key]:.2f}" for key in ("position_bias", "length_bias")]
        costs = [f"{row.calls:g}", f"{row.tokens:.0f}", str(found["n"])]
        yield f"| {' | '.join([f'`{row.critic}`', row.method, *shares, *biases, *costs])} |"


def spanned(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
