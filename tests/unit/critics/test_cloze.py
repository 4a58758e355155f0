"""The cloze critic: likelihoods by echo or by forced tokens, refusals, and the preference."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import Body, ChatServer
from quip.core.records import Critique
from quip.critics import cloze
from quip.critics.comparison import Comparison
from quip.critics.debiasing import Debias, calibrated_preference, sigmoid
from quip.llm import connection
from quip.llm.requests.chat import BadReply
from quip.llm.requests.protocols import (
    echo_body,
    forced_body,
    read_echo,
    read_forced,
    scoring_request,
)
from quip.runtime.errors import EndpointError

Project = Callable[..., Path]
PAIRS = [
    Comparison("g1", "gold", 'I "ran".', "better", "worse", "ha ha", "oh no no"),
    Comparison("g2", "gold", "I sat.", "better", "worse", "same", "same"),
]


def echoed(value: Callable[[str, str], float]) -> Callable[[Body], tuple[int, bytes]]:
    """An endpoint that echoes its prompt, cut at the spaces; value(prompt, token) is what a token
    is worth."""

    def answer(body: Body) -> tuple[int, bytes]:
        prompt = body["prompt"]
        assert (body["echo"], body["max_tokens"], body["logprobs"]) == (True, 1, 1)
        parts = [part for part in prompt.replace(" ", "\0 ").split("\0") if part] + [" new"]
        starts = [sum(map(len, parts[:n])) for n in range(len(parts))]
        logprobs: list[float | None] = [value(prompt, part) for part in parts]
        logprobs[0] = None
        choice = {
            "text": prompt + " new",
            "logprobs": {"tokens": parts, "token_logprobs": logprobs, "text_offset": starts},
        }
        return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9}}).encode()

    return answer


def ask(
    server: ChatServer, project: Project, prompt: str = "cloze", calibrated: bool = False
) -> list[Critique]:
    project(endpoints={"scripted": {"base_url": server.url, "model": "m", "concurrency": 1}})
    with connection.connect("scripted") as model:
        return cloze.compare(model, prompt, calibrated, PAIRS, "test")


def test_the_text_with_the_higher_likelihood_per_token_is_preferred(
    server: ChatServer, project: Project
) -> None:
    """`oh no no` has three tokens of -1, `ha ha` two of -2: length plays no part."""
    server.answer = echoed(lambda _, token: -2.0 if "ha" in token else -1.0)
    row, same = ask(server, project)
    assert row.forward.p_first == pytest.approx(sigmoid(-2.0 + 1.0))
    assert row.backward.p_first == pytest.approx(sigmoid(1.0))
    assert same.forward.source == "identical"
    assert [body["prompt"] for body in server.asked] == [
        'The funny paraphrase of "I "ran"." is "ha ha',
        'The funny paraphrase of "I "ran"." is "oh no no',
    ]


def test_tokens_of_the_template_and_new_ones_do_not_count(
    server: ChatServer, project: Project
) -> None:
    server.answer = echoed(lambda _, token: -1.0 if token.strip('" ') in "ha oh no" else -50.0)
    assert ask(server, project)[0].forward.p_first == pytest.approx(0.5)


def test_the_calibrated_critic_subtracts_the_likelihood_of_the_text_alone(
    server: ChatServer, project: Project
) -> None:
    def value(prompt: str, token: str) -> float:
        alone = prompt.startswith("A remark")
        return {"ha": -4.0, "oh": -1.0, "no": -1.0}[token.strip('" ')] if alone else -3.0

    def words_only(prompt: str, token: str) -> float:
        return value(prompt, token) if token.strip('" ') in ("ha", "oh", "no") else -9.0

    server.answer = echoed(words_only)
    row = ask(server, project, calibrated=True)[0]
    assert row.forward.p_first == pytest.approx(sigmoid((-3 + 4) - (-3 + 1)))
    assert len(server.asked) == 4


def test_no_debiasing_changes_a_critic_without_positions(
    server: ChatServer, project: Project
) -> None:
    server.answer = echoed(lambda _, token: -2.0 if "ha" in token else -1.0)
    row = ask(server, project)[0]
    for method in ("none", "probability", "log_odds", "content_free"):
        debias = Debias(method=method, scale=1.0, per_word=0.0, content_free=0.5)
        assert calibrated_preference(row, debias) == pytest.approx(row.forward.p_first)


def generated(body: Body) -> tuple[int, bytes]:
    """An endpoint that ignores `echo`, as many do."""
    logprobs = {"tokens": [" new"], "token_logprobs": [-0.1], "text_offset": [0]}
    return 200, json.dumps({"choices": [{"text": " new", "logprobs": logprobs}]}).encode()


def bare(body: Body) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"text": body["prompt"], "logprobs": None}]}).encode()


@pytest.mark.parametrize("answer", [generated, bare])
def test_an_endpoint_without_prompt_logprobs_is_refused_at_once(
    server: ChatServer, project: Project, answer: Callable[[Body], tuple[int, bytes]]
) -> None:
    server.answer = answer
    with pytest.raises(EndpointError, match="'scripted': it returns no log-probabilities of its p"):
        ask(server, project)
    assert len(server.asked) == 1


def test_an_endpoint_that_refuses_echo_is_named_with_the_reason(
    server: ChatServer, project: Project
) -> None:
    refusal = json.dumps({"error": {"message": "Only no echo is supported"}}).encode()
    server.answer = lambda body: (400, refusal)
    with pytest.raises(EndpointError, match=r"Only no echo .*'cloze' asks /completions for `echo`"):
        ask(server, project)


# ---- forced, as the embedded engine does


def forced_answer(text: str, tokens: list[tuple[str, float]]) -> bytes:
    content = [{"token": token, "logprob": value} for token, value in tokens]
    return json.dumps({"choices": [{"text": text, "logprobs": {"content": content}}]}).encode()


def test_a_grammar_lets_the_model_write_the_tokens_of_the_text_and_nothing_else() -> None:
    body = forced_body(scoring_request("It is ", "ha ha", [40, 7]), "m")
    assert (body["prompt"], body["grammar"]) == ("It is ", "root ::= <[40]> <[7]>")
    assert body["max_tokens"] == 3
    assert "echo" not in body


def test_the_token_that_ends_the_answer_is_not_the_text_s() -> None:
    tokens = [("ha", -1.0), (" ha", -math.inf), ("", -9.0)]
    found = read_forced(forced_answer("ha ha", tokens), scoring_request("", "ha ha", [1, 2]), "m")
    assert found.top_logprobs == [("ha", -1.0), (" ha", -100.0)]


@pytest.mark.parametrize(
    ("text", "tokens"), [("ho ho", [("ho", -1.0), (" ho", -1.0)]), ("ha ha", [("ha", -1.0)])]
)
def test_another_text_than_the_given_one_is_no_answer(text: str, tokens: Any) -> None:
    with pytest.raises(BadReply, match="another text"):
        read_forced(forced_answer(text, tokens), scoring_request("", "ha ha", [1, 2]), "m")


def test_the_two_ways_and_different_tokens_are_different_questions() -> None:
    keys = {scoring_request("a", "b", cut).key("m") for cut in (None, [1], [2])}
    assert len(keys) == 3
    assert echo_body(scoring_request("a ", "b"), "m")["prompt"] == "a b"


def test_a_token_that_reaches_over_the_edge_of_the_text_counts() -> None:
    choice = {
        "text": 'is "ha',
        "logprobs": {
            **{"tokens": ["is", ' "ha'], "token_logprobs": [None, -2.0]},
            "text_offset": [0, 2],
        },
    }
    content = json.dumps({"choices": [choice]}).encode()
    assert read_echo(content, scoring_request('is "', "ha"), None).top_logprobs == [(' "ha', -2.0)]


@pytest.mark.slow
def test_the_embedded_engine_finds_an_ordinary_sentence_likelier_than_a_jumbled_one(
    tmp_path: Path, project: Project
) -> None:
    pairs = [
        Comparison("g", "gold", "I am.", "better", "worse", "The cat sat on the mat, as cats do.",
                   "Mat the on sat do cats as, cat the \u00e9t\u00e9."),
    ]  # fmt: skip
    project()
    with connection.connect("embedded") as model:
        [row] = cloze.compare(model, "cloze_humor", False, pairs, "test")
        assert row.forward.p_first is not None
        assert row.forward.p_first > 0.9
        calls = model.spent()["calls"]
        again = cloze.compare(model, "cloze_humor", False, pairs, "test")
        assert again == [row]
        assert model.spent()["stored"] == calls
