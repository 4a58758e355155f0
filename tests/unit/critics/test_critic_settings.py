"""Critic kinds: short forms, names and prompts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quip.critics.critic_settings import (
    ENDPOINT_KINDS,
    QUESTIONS,
    CriticParams,
    critic_name,
    parse,
    prompt_name,
    short_form,
)
from quip.llm.requests import prompts
from quip.runtime.errors import ParamsError

BASE = CriticParams(kind="learned", endpoint="small", samples=3)

critics = st.builds(
    CriticParams,
    kind=st.sampled_from(ENDPOINT_KINDS),
    endpoint=st.just("small"),
    question=st.sampled_from(QUESTIONS),
    prompt=st.sampled_from([None, "critic_witty"]),
    samples=st.just(3),
    calibrated=st.just(False),
)


@given(critics)
def test_a_critic_is_read_back_from_its_short_form(critic: CriticParams) -> None:
    assert parse(short_form(critic), BASE) == critic


def test_the_whole_form() -> None:
    found = parse("cloze:humor:calibrated/mine@large", BASE)
    assert (found.kind, found.question, found.calibrated) == ("cloze", "humor", True)
    assert (found.prompt, found.endpoint, found.samples) == ("mine", "large", 3)
    assert short_form(found) == "cloze:humor:calibrated/mine"


@pytest.mark.parametrize("spec", ["mpc", "mcp:funny", "", "mcp:humor:humor", "mcp/a b"])
def test_a_bad_short_form_is_refused_with_the_right_form(spec: str) -> None:
    with pytest.raises(ParamsError, match=r"names no critic. Form: KIND\[:QUESTION\]"):
        parse(spec, BASE)


def test_a_typo_gets_the_nearest_kind() -> None:
    with pytest.raises(ParamsError, match="Did you mean 'mcp_reason'"):
        parse("mcp_reson", BASE)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("mcp", "small"),
        ("mcp@large", "large"),
        ("mcp:humor", "mcp:humor@small"),
        ("mcp_reason", "mcp_reason@small"),
        ("cloze:calibrated@large", "cloze:calibrated@large"),
        ("panel", "panel"),
        ("learned", "learned"),
    ],
)
def test_only_the_overall_multiple_choice_goes_by_its_endpoint(spec: str, name: str) -> None:
    """A judge is called by its endpoint, and asks just that."""
    assert critic_name(parse(spec, BASE)) == name


@pytest.mark.parametrize("kind", ENDPOINT_KINDS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_every_kind_has_a_prompt_for_every_question(kind: str, question: str) -> None:
    critic = parse(f"{kind}:{question}", BASE)
    text = "\n".join(part for _, part in prompts.read(prompt_name(critic)))
    slots = {"{text}"} if kind == "cloze" else {"{literal}", "{first}", "{second}"}
    assert all(slot in text for slot in slots)
