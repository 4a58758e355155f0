"""Does a judge favour its own kin? The leakage audit (Li et al. 2025, arXiv 2502.01534). Pure.

A judge that is one model with the teacher or the critic is set beside every judge that is not: the
gap is its score of an arm minus the other's, on the same inputs. The gap of gains, that of an arm
minus that of the base, is the part that training may have put there: what the critic's own verdicts
see of an arm's progress, and an unrelated judge's do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from quip.evaluation.metrics.bootstrap import bootstrap

ROLES = ("teacher", "critic")
Points = Mapping[str, Mapping[str, Mapping[str, float]]]
"""{judge: {arm: {input: points}}}."""


def roles(files: Mapping[str, Any]) -> dict[str, Any]:
    """Which model plays which part: {"teacher": model, "critic": model, "judges": {name: model}}.

    `files` is {file name: content} of data/roles: teacher.json and critic.json hold one endpoint,
    judges.json several, each with its name in `endpoint` and its `model`.
    """
    found: dict[str, Any] = {
        role: files[role]["model"] for role in ("teacher", "critic") if role in files
    }
    found["judges"] = {judge["endpoint"]: judge["model"] for judge in files.get("judges", [])}
    return found


def same(one: str, other: str) -> bool:
    """Whether two model names are one model, folders and file endings aside."""
    a, b = (name.casefold().rsplit("/", 1)[-1].removesuffix(".gguf") for name in (one, other))
    return a == b


def kin(roles: Mapping[str, Any]) -> dict[str, list[str]]:
    """{judge: roles its model also plays}, of {"teacher", "critic", "judges": {name: model}}."""
    return {
        judge: [role for role in ROLES if roles.get(role) and same(model, roles[role])]
        for judge, model in (roles.get("judges") or {}).items()
    }


def audit(
    points: Points, roles: Mapping[str, Any], base: str, resamples: int, seed: int
) -> list[dict[str, Any]]:
    """One entry for every judge that is one model with a role and every judge that is not.

    {"role", "own", "other", "unrelated": whether the other plays no role at all, "arms": {arm:
    gap}, "gains": {arm: gap of its gain over `base`}}; each gap with ci95 (paired bootstrap over
    inputs) and n. Arms without an input that both judges read are left out.
    """
    found = []
    related = {judge: roles_ for judge, roles_ in kin(roles).items() if judge in points}
    for role in ROLES:
        for own in (judge for judge, plays in related.items() if role in plays):
            for other in (judge for judge, plays in related.items() if role not in plays):
                gaps = gaps_of(points[own], points[other])
                gains = {
                    arm: minus(gap, gaps[base])
                    for arm, gap in gaps.items()
                    if arm != base and base in gaps
                }
                found.append(
                    {
                        **{"role": role, "own": own, "other": other},
                        "unrelated": not related[other],
                        "arms": summaries(gaps, resamples, seed),
                        "gains": summaries(gains, resamples, seed),
                    }
                )
    return found


def gaps_of(
    own: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """{arm: {input: own points minus the other's}} of what both judges read."""
    return {arm: minus(own[arm], other[arm]) for arm in own if arm in other}


def minus(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {key: value - other[key] for key, value in one.items() if key in other}


def summaries(
    gaps: Mapping[str, Mapping[str, float]], resamples: int, seed: int
) -> dict[str, dict[str, Any]]:
    """{name: {"gap": mean, "ci95", "n"}} of the names that have any input."""
    return {
        name: {
            "gap": float(np.mean(values)),
            "ci95": bootstrap(values, resamples, seed),
            "n": len(gap),
        }
        for name, gap in gaps.items()
        if (values := sorted(gap.values()))
    }
