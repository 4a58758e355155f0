"""Critics that ask an endpoint: multiple choice and cloze."""

from __future__ import annotations

from collections.abc import Sequence

from quip.core.records import Critique
from quip.critics.comparison import Comparison
from quip.critics.critic_kinds import CriticParams, named, prompt_of
from quip.critics.multiple_choice import compare
from quip.llm.connection import Oracle


def put(
    oracle: Oracle, params: CriticParams, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """`pairs` put to one endpoint in the manner of `params`, under the critic's name."""
    if params.kind == "cloze":
        from quip.critics import cloze

        rows = cloze.compare(oracle, prompt_of(params), params.calibrated, pairs, what)
    else:
        reason = params.kind == "mcp_reason"
        rows = compare(oracle, prompt_of(params), params.samples, pairs, what, reason)
    return [row.model_copy(update={"judge": named(params)}) for row in rows]
