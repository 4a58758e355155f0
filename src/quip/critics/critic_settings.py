"""Critic settings: section `critic` of params.yaml, and the short forms and names of critics.

The short form names a critic in one word:

`mcp:humor`, `cloze:calibrated`, `mcp/critic_witty@openai`: KIND[:QUESTION][:calibrated][/PROMPT]
[@ENDPOINT]. `quip.critics.critic_kinds` says what each kind does.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from quip.core.params import Section, did_you_mean
from quip.runtime.errors import ParamsError

Kind = Literal["mcp", "mcp_reason", "cloze", "panel", "learned"]
Question = Literal["overall", "humor", "content"]
LEARNED, PANEL = "learned", "panel"
"""The names of these two kinds among the judges."""
ENDPOINT_KINDS = ("mcp", "mcp_reason", "cloze")
QUESTIONS = ("overall", "humor", "content")
PROMPTS = {"mcp": "critic_paper", "mcp_reason": "critic_reason", "cloze": "cloze"}
"""{kind: its prompt for the overall question}; other questions append `_humor` or `_content`."""
SPEC = re.compile(
    r"(?P<kind>[a-z_]+)(?::(?P<question>overall|humor|content))?(?P<calibrated>:calibrated)?"
    r"(?:/(?P<prompt>\w+))?(?:@(?P<endpoint>[\w.-]+))?"
)


class PanelParams(Section):
    """The signals of the kind `panel`, and the number of gold pairs for its fit."""

    signals: list[str] = Field(default=["mcp", "mcp:humor", "mcp:content", "words"], min_length=1)
    """Critics in the short form of `parse`, or `words`, the difference in length."""
    per_kind: int | None = 10
    """Pairs per kind of the tuning half that the panel is fitted on; None: all."""


class CriticParams(Section):
    """Section `critic`, read by `audit`, `critique`, `rank` and `control`."""

    kind: Kind
    endpoint: str
    question: Question = "overall"
    prompt: str | None = None
    """A file of prompts/ for the overall question; None: the prompt of the kind."""
    samples: int
    calibrated: bool = False
    """Cloze only: whether to subtract the likelihood without question and input."""
    panel: PanelParams = PanelParams()


def parse(spec: str, base: CriticParams) -> CriticParams:
    """The critic that KIND[:QUESTION][:calibrated][/PROMPT][@ENDPOINT] names, such as
    `cloze:humor`. The defaults are overall, not calibrated, the prompt of the kind, and the
    endpoint of `base`. Raises ParamsError for any other text."""
    found = SPEC.fullmatch(spec)
    known = (*ENDPOINT_KINDS, PANEL, LEARNED)
    if found is None or found["kind"] not in known:
        raise ParamsError(
            f"params.yaml: '{spec}' names no critic. Form: KIND[:QUESTION][:calibrated][/PROMPT]"
            f"[@ENDPOINT], where KIND is one of {', '.join(known)} and QUESTION one of "
            f"{', '.join(QUESTIONS)}.{did_you_mean(spec.split(':')[0], known)}"
        )
    return base.model_copy(
        update={
            "kind": found["kind"],
            "question": found["question"] or "overall",
            "calibrated": found["calibrated"] is not None,
            "prompt": found["prompt"],
            "endpoint": found["endpoint"] or base.endpoint,
        }
    )


def short_form(critic: CriticParams) -> str:
    """The short form of a critic without its endpoint, as `parse` reads it."""
    if critic.kind not in ENDPOINT_KINDS:
        return critic.kind
    question = "" if critic.question == "overall" else f":{critic.question}"
    calibrated = ":calibrated" if critic.kind == "cloze" and critic.calibrated else ""
    own = critic.prompt in (None, PROMPTS[critic.kind])
    return f"{critic.kind}{question}{calibrated}{'' if own else f'/{critic.prompt}'}"


def critic_name(critic: CriticParams) -> str:
    """The name of a critic among the judges: `learned`, `panel`, the endpoint for multiple choice
    about the overall question, else the short form with the endpoint."""
    if critic.kind not in ENDPOINT_KINDS:
        return critic.kind
    if critic.kind == "mcp" and critic.question == "overall":
        return critic.endpoint
    return f"{short_form(critic)}@{critic.endpoint}"


def prompt_name(critic: CriticParams) -> str:
    """The prompt of a critic; `mcp_reason` and `cloze` need a prompt of their own form."""
    name = critic.prompt or PROMPTS[critic.kind]
    return name if critic.question == "overall" else f"{name}_{critic.question}"
