"""The endpoint client against a real HTTP server on the loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import ChatServer, chat
from quip.llm import connection, retries
from quip.llm.endpoints import endpoint
from quip.llm.requests.chat import Request
from quip.runtime.errors import EndpointError, ParamsError

Project = Callable[..., Path]


def requests(n: int) -> list[Request]:
    return [Request((("user", f"question {i}"),), seed=i) for i in range(n)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)


@pytest.fixture
def scripted(server: ChatServer, project: Project) -> ChatServer:
    project(
        endpoints={"scripted": {"base_url": server.url, "model": "m", "retries": 2, "timeout": 5}}
    )
    server.answer = lambda body: chat(f"answer to {body['messages'][0]['content']}")
    return server


def ask(n: int) -> list[str | None]:
    with connection.connect("scripted") as model:
        return [reply.text if reply else None for reply in model.ask(requests(n), "test")]


def test_replies_come_in_the_order_of_the_requests(scripted: ChatServer) -> None:
    assert ask(9) == [f"answer to question {i}" for i in range(9)]


def test_a_second_run_makes_no_call(scripted: ChatServer) -> None:
    first = ask(5)
    asked = len(scripted.asked)
    assert ask(5) == first
    assert len(scripted.asked) == asked == 5


def test_only_what_is_missing_is_asked(scripted: ChatServer) -> None:
    ask(3)
    ask(5)
    assert len(scripted.asked) == 5


def test_another_model_is_another_question(scripted: ChatServer, project: Project) -> None:
    ask(2)
    entry = {"base_url": scripted.url, "model": "other"}
    project(endpoints={"scripted": entry})
    ask(2)
    assert [body["model"] for body in scripted.asked] == ["m", "m", "other", "other"]


def test_a_server_error_is_tried_again(scripted: ChatServer) -> None:
    failures = iter([(500, b"{}"), (429, b"{}")])
    scripted.answer = lambda body: next(failures, chat("fine"))
    assert ask(1) == ["fine"]
    assert len(scripted.asked) == 3


@pytest.mark.parametrize(
    "bad",
    [
        (200, b"<html>busy</html>"),
        (200, b'{"choices": ['),
        (200, b'{"id": "x", "choices": []}'),
        chat(None),
        chat("  "),
    ],
    ids=["html", "cut off", "no choices", "no content", "blank"],
)
def test_a_bad_200_is_asked_again_and_never_stored(
    scripted: ChatServer, bad: tuple[int, bytes]
) -> None:
    answers = iter([bad])
    scripted.answer = lambda body: next(answers, chat("good"))
    assert ask(1) == ["good"]
    assert ask(1) == ["good"]
    assert len(scripted.asked) == 2


def test_a_row_that_never_answers_well_stops_the_stage_and_keeps_the_rest(
    scripted: ChatServer,
) -> None:
    good = scripted.answer
    scripted.answer = lambda body: (
        (200, b"<html>") if body["messages"][0]["content"] == "question 1" else good(body)
    )
    with pytest.raises(EndpointError, match=r"1 of 4 calls .*an HTML page.* 3 are done and kept"):
        ask(4)
    scripted.answer = good
    before = len(scripted.asked)
    assert ask(4)[1] == "answer to question 1"
    assert len(scripted.asked) == before + 1


def test_a_refused_key_stops_at_once(
    scripted: ChatServer, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-canary")
    entry = {"base_url": scripted.url, "model": "m", "api_key_env": "SOME_KEY"}
    project(endpoints={"scripted": entry})
    scripted.answer = lambda body: (401, b'{"error": {"message": "bad key"}}')
    with pytest.raises(EndpointError, match="refused the key in SOME_KEY") as caught:
        ask(1)
    assert len(scripted.asked) == 1
    assert scripted.keys == ["Bearer sk-canary"]
    assert "canary" not in str(caught.value)


def test_a_key_that_is_not_set_is_named(scripted: ChatServer, project: Project) -> None:
    entry = {"base_url": scripted.url, "model": "m", "api_key_env": "QUIP_NO_SUCH_KEY"}
    project(endpoints={"scripted": entry})
    with pytest.raises(EndpointError, match="QUIP_NO_SUCH_KEY is not set"):
        ask(1)


def test_an_unreachable_endpoint(project: Project) -> None:
    project(
        endpoints={"scripted": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0}}
    )
    with pytest.raises(EndpointError, match="nothing answers there") as caught:
        ask(1)
    assert caught.value.exit_code == 3


def test_an_unknown_endpoint(project: Project) -> None:
    project()
    with pytest.raises(ParamsError, match=r"'embeded' is not under endpoints.*'embedded'"):
        endpoint("embeded")


def test_the_environment_may_move_an_endpoint(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project()
    monkeypatch.setenv("QUIP_BASE_URL_EMBEDDED", "http://127.0.0.1:1/v1")
    assert endpoint("embedded").base_url == "http://127.0.0.1:1/v1"


def test_the_first_token_s_alternatives_are_kept(scripted: ChatServer) -> None:
    scripted.answer = lambda body: chat("1", {"1": -0.1, "2": -2.4})
    with connection.connect("scripted") as model:
        [reply] = model.ask([Request((("user", "q"),), top_logprobs=5)], "test")
    assert reply
    assert reply.top_logprobs == [("1", -0.1), ("2", -2.4)]
    assert scripted.asked[0]["top_logprobs"] == 5


def test_the_ledger_counts_stored_replies_too(scripted: ChatServer, project: Project) -> None:
    entry = {"base_url": scripted.url, "model": "m", "price_in": 2, "price_out": 8}
    project(endpoints={"scripted": entry})

    def spent() -> dict[str, Any]:
        with connection.connect("scripted") as model:
            model.ask(requests(3), "test")
            return model.spent()

    first, again = spent(), spent()
    assert (first["stored"], again["stored"]) == (0, 3)
    assert (first["paid"], again["paid"]) == (first["money"], 0) != (0, 0)
    assert {**first, "stored": 3, "paid": 0} == again
    assert again["prompt_tokens"] == 30


def test_a_damaged_reply_is_asked_again(scripted: ChatServer) -> None:
    from quip.runtime import paths

    ask(2)
    journal = paths.state("calls.journal")
    damaged = journal.read_bytes().replace(b"answer to question 0", b"anXwer to question 0")
    journal.write_bytes(damaged)
    assert ask(2) == ["answer to question 0", "answer to question 1"]
    assert len(scripted.asked) == 3
