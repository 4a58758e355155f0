"""The calls of a stage as an output: what is written, in which order, and what is imported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import ChatServer, chat
from quip.llm import call_outputs, connection
from quip.llm.call_outputs import record_calls
from quip.llm.reply_store import open_store
from quip.llm.requests.chat import ModelReply, Request
from quip.runtime import paths
from quip.runtime.errors import DataError

Project = Callable[..., Path]
FILE = "data/calls/some.jsonl"


@pytest.fixture(autouse=True)
def answering(server: ChatServer, scripted_project: Project) -> None:
    scripted_project()
    server.answer = lambda body: chat(f"to {body['messages'][-1]['content']}")


def questions(*texts: str) -> Iterator[Request]:
    return (Request((("user", text),)) for text in texts)


def ask(*texts: str) -> list[ModelReply | None]:
    with connection.connect("scripted") as llm:
        return list(llm.ask(questions(*texts), "test"))


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(FILE).read_text().splitlines()]


def test_calls_stand_in_the_order_of_first_use_each_once() -> None:
    with record_calls(FILE):
        ask("b", "a", "b")
        ask("c", "a")
    assert [row["key"] for row in lines()] == [request.key("m") for request in questions(*"bac")]
    assert lines()[0]["model"] == "m"
    assert lines()[0]["reply"]["text"] == "to b"


def test_the_file_is_the_same_whether_replies_were_stored_or_not() -> None:
    with record_calls(FILE):
        ask("a", "b")
    first = Path(FILE).read_bytes()
    ask("d")
    with record_calls(FILE):
        ask("a", "b")
    assert Path(FILE).read_bytes() == first


def test_counts_of_cached_tokens_are_left_out() -> None:
    reply = ModelReply(text="x", finish_reason="stop", prompt_tokens=9, cached_tokens=7)
    line = call_outputs.as_line("0" * 64, "m", reply.model_dump_json())
    assert json.loads(line)["reply"] == {"text": "x", "finish_reason": "stop", "prompt_tokens": 9}


def test_a_stage_without_calls_writes_an_empty_file() -> None:
    with record_calls(FILE):
        pass
    assert Path(FILE).read_bytes() == b""
    assert not paths.state("calls.journal").exists()


def test_a_stage_that_fails_writes_none() -> None:
    with pytest.raises(ZeroDivisionError), record_calls(FILE):
        raise ZeroDivisionError
    assert not Path(FILE).exists()


def test_calls_outside_of_a_block_are_not_noted() -> None:
    ask("a")
    with record_calls(FILE):
        ask("b")
    assert len(lines()) == 1


def test_an_empty_store_imports_and_pays_nothing(server: ChatServer) -> None:
    with record_calls(FILE):
        replies = ask("a", "b")
    paths.state("calls.journal").unlink()
    assert ask("a", "b") == replies
    assert len(server.asked) == 2
    with closing(open_store()) as store:
        assert {record.by for record in store.records()} == {call_outputs.IMPORTED}
        assert store.money == 0


def test_a_store_with_replies_imports_nothing_by_itself(server: ChatServer) -> None:
    with record_calls(FILE):
        ask("a")
    paths.state("calls.journal").unlink()
    kept = Path(FILE).rename("aside.jsonl")
    ask("b")
    kept.rename(FILE)
    ask("a")
    assert len(server.asked) == 3


def test_a_broken_line_is_named() -> None:
    Path(FILE).parent.mkdir(parents=True)
    Path(FILE).write_text('{"key": "short", "model": "m", "reply": {}}\n')
    with pytest.raises(DataError, match=r"some.jsonl, line 1: field 'key'"):
        ask("a")
