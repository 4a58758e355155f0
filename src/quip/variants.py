"""Choosing the critic's prompt by measurement: `quip critics`.

Every prompt named `critic*` is measured on the tuning half of the gold pairs; the held-out half is
left to the `audit` stage, so that the figure it reports was not chosen for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quip import oracle, prompts
from quip.agreement import audit_summary
from quip.critic import CriticParams, compare, gold_comparisons
from quip.params import load
from quip.preference import Debias, Method, logit, preference
from quip.records import Critique, GoldPair, read_rows

GOLD = Path("data/raw/gold.jsonl")


def names() -> list[str]:
    """The prompts that can be a critic's."""
    return sorted(path.stem for path in prompts.FOLDER.glob("critic*.txt"))


def tuning(pairs: Sequence[GoldPair], per_kind: int | None) -> list[GoldPair]:
    kinds = dict.fromkeys(pair.kind for pair in pairs)
    halves = {k: [p for p in pairs if p.kind == k and p.half == "tune"] for k in kinds}
    return [pair for group in halves.values() for pair in group[:per_kind]]


def fit(critiques: Sequence[Critique], method: Method) -> Debias:
    """`scale` and `per_word` by logistic regression without intercept (ridge, C = 1).

    Each gold pair enters twice, as (better, worse) and the other way round, so the fit is
    symmetric by construction. Features are standardised by their spread before the penalty.
    """
    from sklearn.linear_model import LogisticRegression

    rows = [
        (logit(p), float(len(c.a.split()) - len(c.b.split())))
        for c in critiques
        if (p := preference(c.forward, c.backward, method)) is not None
    ]
    features = np.array(rows)
    spread = features.std(axis=0)
    both = np.vstack([features, -features]) / spread
    known = np.repeat([1, 0], len(features))
    weights = LogisticRegression(fit_intercept=False, C=1.0).fit(both, known).coef_[0] / spread
    return Debias(method=method, scale=round(weights[0], 3), per_word=round(weights[1], 4))


def measure(chosen: Sequence[str], per_kind: int | None) -> dict[str, dict[str, Any]]:
    """The audit's figures of each prompt on the tuning half (at most `per_kind` pairs a kind).

    `raw` is the critic as it answers, both orders averaged; `fitted` has `scale` and `per_word`
    fitted on the same pairs (two numbers, so it flatters itself little; the audit does not).
    """
    critic = load("critic", CriticParams)
    method = load("debias", Debias).method
    pairs = tuning(read_rows(GOLD, GoldPair), per_kind)
    found = {}
    with oracle.connect(critic.endpoint) as model:
        for name in chosen:
            rows = compare(model, name, critic.samples, gold_comparisons(pairs), name)
            fitted = fit(rows, method)
            raw = Debias(method=method, scale=1.0, per_word=0.0)
            found[f"{name} (raw)"] = audit_summary(pairs, rows, raw, 10_000, 1)
            found[name] = {**audit_summary(pairs, rows, fitted, 10_000, 1), **fitted.model_dump()}
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """One line a prompt: agreement with interval, by kind, position and length bias."""
    kinds = list(next(iter(found.values()))["by_kind"])
    lines = [f"{'prompt':22}{'agreement':>22}" + "".join(f"{k:>11}" for k in kinds) + "   PB   LB"]
    for name, row in sorted(found.items(), key=lambda item: -item[1]["agreement"]):
        low, high = row["ci95"]
        by_kind = "".join(f"{row['by_kind'][k]['agreement']:>11.2f}" for k in kinds)
        bias = f"{row['position_bias']:5.2f}{row['length_bias']:5.2f}"
        if "scale" in row:
            bias += f"  scale: {row['scale']}, per_word: {row['per_word']}"
        lines.append(f"{name:22}{row['agreement']:>8.3f} [{low:.3f}, {high:.3f}]{by_kind}{bias}")
    return "\n".join(lines)
