"""mcp_reason: a reason first, then the choice, whose probability is read at its own token."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_endpoint import CRITIC_PROMPT, Body, ChatServer, shown
from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import CriticParams
from quip.critics.multiple_choice import CHOICE_ONLY, compare, measure_content_free
from quip.critics.prompted import compare_with
from quip.llm import connection
from quip.llm.requests.chat import Request
from quip.llm.requests.protocols import final_choice, read_choice
from quip.runtime.errors import DataError

Project = Callable[..., Path]
Tokens = list[tuple[str, dict[str, float]]]
PAIR = Comparison("t1", "test", "I ran.", "dpo", "teacher", "joke", "flat")


def reasoned(*tokens: tuple[str, dict[str, float]]) -> bytes:
    """A reply in tokens, each with its alternatives."""
    content = [
        {"token": t, "logprob": 0.0, "top_logprobs": [{"token": a, "logprob": v} for a, v in alt]}
        for t, alt in ((token, (top or {token: 0.0}).items()) for token, top in tokens)
    ]
    text = "".join(token for token, _ in tokens)
    choice = {"finish_reason": "stop", "message": {"content": text}}
    return json.dumps({"choices": [{**choice, "logprobs": {"content": content}}]}).encode()


REASON: Tokens = [("Choice", {}), (" ", {}), ("2", {"2": -0.1, "1": -9.0}), (" is flat.\n", {})]
ENDING: Tokens = [
    ("Choice", {}),
    (":", {}),
    (" ", {}),
    ("1", {"1": math.log(0.8), "2": math.log(0.2)}),
]
ASKED = Request((("user", "?"),), max_tokens=80, top_logprobs=20, cut_off=True)


def test_the_alternatives_are_those_of_the_last_choice_not_of_a_number_in_the_reason() -> None:
    found = read_choice(reasoned(*REASON, *ENDING), ASKED, None)
    assert found.top_logprobs == [("1", math.log(0.8)), ("2", math.log(0.2))]
    assert read_choice(reasoned(*REASON, *ENDING, (".", {}), ("<|im_end|>", {})), ASKED, None)


def test_an_answer_that_does_not_end_with_a_choice_has_none() -> None:
    assert read_choice(reasoned(*REASON), ASKED, None).top_logprobs is None
    cut = reasoned(*REASON, ("Both", {}), (" are fine", {}))
    assert read_choice(cut, ASKED, None).top_logprobs is None


ENDS = {
    "Reason: the second is dull.\nChoice: 1": "1",
    "Choice 1 is dull.\nChoice: **2**.": "2",
    "1": "1",
    "(2)\n": "2",
    "Choice: 1 or 2": None,
    "1 and 2": None,
    "1/2": None,
    "Choice: 1\nReason: it is funny": None,
    "It is 12": None,
    "It is 1.2": None,
    "Choice: -1": None,
    "v2": None,
    "": None,
    "3": None,
}


@pytest.mark.parametrize(("text", "choice"), ENDS.items())
def test_the_choice_is_the_last_one_of_an_answer(text: str, choice: str | None) -> None:
    assert final_choice(text) == choice


@given(st.text(alphabet="0123456789-., \nab*"))
def test_the_parser_is_total(text: str) -> None:
    assert final_choice(text) in ("1", "2", None)


# ---- asking


@pytest.fixture
def reason_project(
    project: Project, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], None]:
    from quip.llm.requests import prompts

    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "critic_reason.txt").write_text(CRITIC_PROMPT, encoding="utf-8")
    monkeypatch.setattr(prompts, "FOLDER", folder)

    def make(logprobs: bool) -> None:
        entry = {"base_url": server.url, "model": "m", "logprobs": logprobs, "concurrency": 1}
        project(endpoints={"scripted": entry})

    return make


def funny(body: Body) -> tuple[int, bytes]:
    """It prefers the joke at odds of 4 to 1, and the first at 2 to 1."""
    _, first, second = shown(body)
    odds = math.log(4) * ((first == "joke") - (second == "joke")) + math.log(2)
    p = 1 / (1 + math.exp(-odds))
    named = "1" if p > 0.5 else "2"
    return 200, reasoned(*REASON, (named, {"1": math.log(p), "2": math.log(1 - p)}))


CRITIC = CriticParams(kind="mcp_reason", endpoint="scripted", prompt=None, samples=3)


def ask() -> Critique:
    with connection.connect("scripted") as model:
        return compare_with(model, CRITIC, [PAIR], "test")[0]


def test_the_probability_is_read_at_the_choice(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    server.answer = funny
    reason_project(True)
    row = ask()
    assert row.judge == "mcp_reason@scripted"
    assert (row.forward.source, row.backward.source) == ("logprobs", "logprobs")
    assert row.forward.p_first == pytest.approx(8 / 9)
    assert row.backward.p_first == pytest.approx(1 / 3)
    assert [body["max_tokens"] for body in server.asked] == [80, 80]


def test_without_log_probabilities_reasons_are_sampled(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    server.answer = funny
    reason_project(False)
    row = ask()
    assert len(server.asked) == 6
    assert row.forward == Answer(p_first=0.8, source="samples", raw=row.forward.raw)
    assert row.backward.p_first == pytest.approx(0.2)


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_reason_without_a_choice_is_asked_for_the_choice_alone(
    server: ChatServer, reason_project: Callable[[bool], None], logprobs: bool
) -> None:
    """What it chooses then is the answer; one that has chosen is not asked again."""

    def forgetful(body: Body) -> tuple[int, bytes]:
        if body["messages"][-1]["content"] == CHOICE_ONLY:
            return 200, reasoned(("2", {"2": math.log(0.7), "1": math.log(0.3)}))
        first = shown(body)[1]
        return (200, reasoned(*REASON)) if first == "joke" else funny(body)

    server.answer = forgetful
    reason_project(logprobs)
    row = ask()
    assert row.forward.p_first == pytest.approx(0.3 if logprobs else 0.2)
    assert row.backward.p_first == pytest.approx(1 / 3 if logprobs else 0.2)
    assert (row.forward.raw or "").startswith("Choice 2 is flat.")
    again = [body for body in server.asked if body["messages"][-1]["content"] == CHOICE_ONLY]
    assert len(again) == (1 if logprobs else 3)
    assert again[0]["messages"][-2] == {"role": "assistant", "content": "Choice 2 is flat."}
    assert again[0]["max_tokens"] == (1 if logprobs else 8)


def test_a_reason_without_a_choice_is_unread(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    server.answer = lambda body: (200, reasoned(*REASON))
    reason_project(True)
    assert ask().forward.source == "unread"


def test_one_store_keeps_answers_with_and_without_reasons_apart(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    """The same prompt asked for a number alone and for a reason first is two questions."""
    server.answer = funny
    reason_project(True)
    ask()
    with connection.connect("scripted") as model:
        compare(model, "critic_reason", 3, [PAIR], "test")
    assert len(server.asked) == 4
    ask()
    assert len(server.asked) == 4


# ---- the lean on empty texts


def test_the_content_free_probability_is_the_mean_over_content_free_texts(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    server.answer = funny
    reason_project(True)
    assert measure_content_free(CRITIC) == pytest.approx(2 / 3)
    assert [shown(body)[1] for body in server.asked] == ["N/A", "[MASK]", ""]


def test_a_critic_without_positions_has_content_free_probability_one_half(
    reason_project: Callable[[bool], None],
) -> None:
    assert measure_content_free(CRITIC.model_copy(update={"kind": "cloze"})) == 0.5


def test_unreadable_content_free_answers_are_an_error(
    server: ChatServer, reason_project: Callable[[bool], None]
) -> None:
    server.answer = lambda body: (200, reasoned(*REASON))
    reason_project(True)
    with pytest.raises(DataError, match="no answer on empty texts could be read"):
        measure_content_free(CRITIC)
