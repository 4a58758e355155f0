"""Preference leakage: whether a judge favours texts of its own model. Pure.

The audit of Li et al. 2025 (arXiv 2502.01534) compares a judge whose model is also the teacher or
the critic with every judge whose model is not: the gap is the score that the first gives an arm
minus the score by the second, on the same inputs. The gap of gains, that of an arm minus that of
the base, is the part that training may have caused: progress of an arm that the critic's model sees
and an unrelated judge does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quip.evaluation.metrics.bootstrap import bootstrap_interval

ROLES = ("teacher", "critic")
Points = Mapping[str, Mapping[str, Mapping[str, float]]]
"""{judge: {arm: {input: points}}}."""


def model_roles(files: Mapping[str, Any]) -> dict[str, Any]:
    """The model of each role: {"teacher": model, "critic": model, "judges": {name: model}}.

    `files` is {file name: content} of data/roles: teacher.json and critic.json hold one endpoint,
    judges.json several, each with its name in `endpoint` and its `model`.
    """
    found: dict[str, Any] = {
        role: files[role]["model"] for role in ("teacher", "critic") if role in files
    }
    found["judges"] = {judge["endpoint"]: judge["model"] for judge in files.get("judges", [])}
    return found


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model; folders, case and the ending .gguf are ignored."""
    a, b = (name.casefold().rsplit("/", 1)[-1].removesuffix(".gguf") for name in (one, other))
    return a == b


def shared_roles(roles: Mapping[str, Any]) -> dict[str, list[str]]:
    """{judge: roles that its model also has}; `roles` is the result of `model_roles`."""
    return {
        judge: [role for role in ROLES if roles.get(role) and same_model(model, roles[role])]
        for judge, model in (roles.get("judges") or {}).items()
    }


def leakage_audit(
    points: Points, roles: Mapping[str, Any], base: str, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """One entry for every pair of a judge whose model has a role and a judge whose model has not.

    {"role", "own", "other", "unrelated": whether the other judge has no role, "arms": {arm: gap},
    "gains": {arm: gap of its gain over `base`}}; each gap with ci95 (paired bootstrap over inputs)
    and n. Arms without an input that both judges read are left out.
    """
    found = []
    related = {judge: roles_ for judge, roles_ in shared_roles(roles).items() if judge in points}
    for role in ROLES:
        for own in (judge for judge, plays in related.items() if role in plays):
            for other in (judge for judge, plays in related.items() if role not in plays):
                gaps = score_gaps(points[own], points[other])
                gains = {
                    arm: subtract(gap, gaps[base])
                    for arm, gap in gaps.items()
                    if arm != base and base in gaps
                }
                found.append(
                    {
                        **{"role": role, "own": own, "other": other},
                        "unrelated": not related[other],
                        "arms": gap_summaries(gaps, resamples, seed),
                        "gains": gap_summaries(gains, resamples, seed),
                    }
                )
    return found


def score_gaps(
    own: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """{arm: {input: points by the own judge minus points by the other}} where both judges read."""
    return {arm: subtract(own[arm], other[arm]) for arm in own if arm in other}


def subtract(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {key: value - other[key] for key, value in one.items() if key in other}


def gap_summaries(
    gaps: Mapping[str, Mapping[str, float]], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """{name: {"gap": mean, "ci95", "n"}} of the names with at least one input."""
    return {
        name: {
            "gap": float(np.mean(values)),
            "ci95": bootstrap_interval(values, resamples, seed),
            "n": len(gap),
        }
        for name, gap in gaps.items()
        if (values := sorted(gap.values()))
    }
