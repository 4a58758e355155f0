"""Prompted critics: ask an endpoint by multiple choice or cloze."""

from __future__ import annotations

from collections.abc import Sequence

from quip.core.records import Critique
from quip.critics import cloze, multiple_choice
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_settings import CriticParams, critic_name, prompt_name
from quip.llm import connection
from quip.llm.connection import LLM


def ask(params: CriticParams, pairs: Sequence[Comparison], what: str) -> Answers:
    """Ask the critic `params` about `pairs` over a new connection."""
    with connection.connect(params.endpoint) as llm:
        return Answers(compare_with(llm, params, pairs, what), llm.spent())


def compare_with(
    llm: LLM, params: CriticParams, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """Ask `llm` about `pairs` as the critic `params`; critiques carry the critic's name."""
    prompt = prompt_name(params)
    if params.kind == "cloze":
        rows = cloze.compare(llm, prompt, params.calibrated, pairs, what)
    else:
        reason = params.kind == "mcp_reason"
        rows = multiple_choice.compare(
            llm, prompt, params.samples, pairs, what, reason, params.question
        )
    return [row.model_copy(update={"judge": critic_name(params)}) for row in rows]
