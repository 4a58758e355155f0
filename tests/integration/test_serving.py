"""quip serve: a real server process asked by the real openai client; its page and votes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from quip_server import SENTENCE, serving, write_project


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[Any]:
    """(base address, project folder) of `quip serve` with the arms sft and dpo."""
    folder = tmp_path_factory.mktemp("served")
    write_project(folder, tiny_weights)
    with serving(folder) as base:
        yield base, folder


@pytest.fixture
def client(served: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, **more: Any) -> Any:
    given = {
        "model": "quip-student",
        "messages": [{"role": "user", "content": SENTENCE}],
        **more,
    }
    return client.chat.completions.create(**given)


def post(served: Any, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        f"{served[0]}{path}", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


# ---- the API, by the real client


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    names = [found.id for found in client.models.list()]
    assert names == ["quip-student/sft", "quip-student/dpo", "quip-student"]
    assert client.models.retrieve("quip-student/dpo").owned_by == "quip"


def test_a_completion_has_its_choices_usage_and_ends(client: openai.OpenAI) -> None:
    answer = ask(client, n=3, max_tokens=5, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.message.role == "assistant" for choice in answer.choices)
    assert {choice.finish_reason for choice in answer.choices} <= {"stop", "length"}
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "quip-student/sft"


def test_the_judged_answer_and_a_seed_repeat_and_other_seeds_differ(
    client: openai.OpenAI,
) -> None:
    def texts(**more: Any) -> list[str]:
        return [choice.message.content for choice in ask(client, **more).choices]

    assert texts() == texts()
    assert texts(n=3, temperature=1, seed=5) == texts(n=3, temperature=1, seed=5)
    assert texts(n=3, temperature=1, seed=5) != texts(n=3, temperature=1, seed=6)
    assert texts(n=3, temperature=1) != texts(n=3, temperature=1)


def test_a_stream_says_the_same_word_by_word(client: openai.OpenAI) -> None:
    whole = ask(client, n=2, seed=3)
    streamed = ["", ""]
    ends, usage = [], None
    for chunk in ask(client, n=2, seed=3, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    assert streamed == [choice.message.content for choice in whole.choices]
    assert len(ends) == 2
    assert usage == whole.usage


def test_parts_of_text_are_joined_and_the_last_user_message_counts(
    client: openai.OpenAI,
) -> None:
    parts = [{"type": "text", "text": "I missed"}, {"type": "text", "text": " my bus."}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "It rained."},
        {"role": "assistant", "content": "Ducks rejoiced."},
        {"role": "user", "content": parts},
    ]
    first, second = ask(client, messages=messages), ask(client)
    assert first.choices[0].message.content == second.choices[0].message.content


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages", None),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", None),
        ({"messages": [{"role": "owl", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"tools": []}, "tools", "unsupported_parameter"),
        (
            {"messages": [{"role": "user", "content": "bus " * 400}]},
            "messages",
            "context_length_exceeded",
        ),
    ],
)
def test_a_bad_request_gets_the_api_s_error(
    client: openai.OpenAI, more: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, **more)
    body: Any = caught.value.body
    assert (body["type"], body["param"], body["code"]) == ("invalid_request_error", param, code)
    assert body["message"]


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named(
    client: openai.OpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError, match="there are: quip-student/sft") as caught:
        ask(client, model="gpt-9")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/chat/completions", b"{", 400), ("/v1/nothing", b"{}", 404), ("/v1/models", b"{}", 405)],
)
def test_what_is_no_request_at_all_gets_it_too(
    served: Any, path: str, body: bytes, status: int
) -> None:
    found, reply = post(served, path, body)
    assert found == status
    assert set(reply["error"]) == {"message", "type", "param", "code"}


def test_many_at_once_get_what_each_would_alone(client: openai.OpenAI) -> None:
    sentences = [f"My bus number {number} was late." for number in range(24)]

    def text(sentence: str) -> str:
        given = [{"role": "user", "content": sentence}]
        answer = ask(client, messages=given, temperature=1, seed=4, max_tokens=8)
        return str(answer.choices[0].message.content)

    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(text, sentences))
    assert len(set(together)) > 12
    assert [text(sentence) for sentence in sentences[:4]] == together[:4]


# ---- the page's own calls


def compare(served: Any, **more: Any) -> dict[str, Any]:
    body = json.dumps({"text": SENTENCE, "attempt": 1, **more}).encode()
    status, found = post(served, "/api/compare", body)
    assert status == 200, found
    return found


def vote(served: Any, key: str, choice: str) -> tuple[int, dict[str, Any]]:
    return post(served, "/api/vote", json.dumps({"id": key, "choice": choice}).encode())


def test_the_page_is_self_contained(served: Any) -> None:
    page = urllib.request.urlopen(f"{served[0]}/").read().decode()
    assert "Which is funnier?" in page
    assert "http://" not in page
    assert "https://" not in page


def test_equal_weights_say_the_same_and_leave_no_pair(served: Any) -> None:
    shown = compare(served, attempt=0)
    assert shown["left"] == shown["right"]
    status, told = vote(served, shown["id"], "left")
    assert (status, told["saved"]) == (200, False)
    assert {told["left"], told["right"]} == {"sft", "dpo"}
    assert not (served[1] / "data/votes/votes.jsonl").exists()


def test_a_comparison_is_voted_on_once(served: Any) -> None:
    shown = compare(served)
    assert vote(served, shown["id"], "neither")[0] == 200
    status, reply = vote(served, shown["id"], "left")
    assert (status, reply["error"]["param"]) == (404, "id")


def test_a_sentence_of_spaces_and_another_choice_are_refused(served: Any) -> None:
    assert post(served, "/api/compare", b'{"text": "  "}')[0] == 400
    assert vote(served, "x", "both")[0] == 400
