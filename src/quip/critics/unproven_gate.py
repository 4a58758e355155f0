"""Unproven gate: refuses to learn from a critic that is not shown to be better than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quip.runtime.errors import DataError

CHANCE = 0.5


def refuse_unproven(audit: Mapping[str, Any], name: str, allowed: str | None) -> None:
    """Refuse to learn from a critic whose interval of agreement with the gold pairs reaches chance.

    `audit` is the content of critic.json, `name` the critic's
    (`quip.critics.critic_settings.critic_name`), `allowed` the name of a critic that passes anyway.
    Raises DataError with the remedies.
    """
    low, high = audit["ci95"]
    if low > CHANCE or allowed == name:
        return
    raise DataError(
        f"the critic '{name}' is not shown to be better than chance: its agreement with "
        f"the gold pairs is {audit['agreement']:.2f} [{low:.2f}, {high:.2f}]. Choose another "
        f"(critic.kind, critic.question, critic.endpoint), or set critique.unproven to {name} to "
        "learn from it all the same; the report will say so."
    )


def most_trusted_judge(audit: Mapping[str, Any], judges: Sequence[str]) -> str:
    """The judge that agrees best with the gold pairs, for uses that need a single judge.

    `audit` is the content of critic.json: the critic's figures at the top level, those of the other
    judges by name. A judge that was not audited counts as chance; among equals the first wins.
    """
    critic = audit.get("critic", {})
    name = {"learned": "learned", "mcp": critic.get("endpoint")}.get(critic.get("kind"))
    agreements = {name: audit.get("agreement", 0.5)}
    agreements |= {judge: found["agreement"] for judge, found in audit.get("judges", {}).items()}
    return max(judges, key=lambda judge: agreements.get(judge, 0.5))
