"""A session's books: what is missing, what is kept, what failed, and when failures stop a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from quip.llm.costs import Ledger
from quip.llm.endpoints import Budget, Endpoint
from quip.llm.reply_store import CallStore
from quip.llm.requests.chat import BadReply, ModelReply, Request, Usage
from quip.llm.requests.protocols import CHAT
from quip.llm.session import MAX_FIRST_FAILURES, Session
from quip.runtime.errors import EndpointError

ONE, TWO = (Request((("user", text),)) for text in ("one", "two"))
KEYS = [request.key("m") for request in (ONE, TWO)]
REPLY = ModelReply(text="ha", finish_reason="stop", prompt_tokens=5, completion_tokens=3)


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setenv("DVC_STAGE", "judge@dpo")
    settings = Endpoint(base_url="http://here/v1", model="m", price_in=1e6, price_out=2e6)
    with closing(CallStore(tmp_path / "calls.journal")) as store:
        books = (store, Ledger(settings), Budget(set_aside=0.5))
        made = Session("one", settings, *books, what="test", total=8, route=CHAT)
        with made.progress:
            yield made


def test_a_request_is_missing_once_and_not_at_all_when_its_reply_is_stored(
    session: Session,
) -> None:
    session.keep(KEYS[1], TWO, REPLY)
    assert list(session.missing([ONE, TWO, ONE])) == [(KEYS[0], ONE)]
    assert session.keys == [KEYS[0], KEYS[1], KEYS[0]]
    assert session.done == 1


def test_a_reply_is_kept_with_its_stage_and_its_cost(session: Session) -> None:
    session.keep(KEYS[0], ONE, REPLY)
    record = session.store.record(KEYS[0])
    assert record
    assert (record.by, record.money) == ("judge@dpo", 5 + 2 * 3)
    assert session.stored(KEYS[0]) == REPLY
    assert session.ledger.paid == 11


def test_a_rejected_reply_costs_but_is_none(session: Session) -> None:
    session.record_rejected(KEYS[0], ONE, BadReply("empty", Usage(5, 0, 0)))
    session.record_rejected(KEYS[1], TWO, BadReply("not JSON"))
    assert (session.ledger.paid, session.store.money) == (5, 5)
    assert session.stored(KEYS[0]) is None


def test_first_calls_that_all_fail_stop_the_stage(session: Session) -> None:
    session.reasons["it answered 500"] += 1
    for _ in range(MAX_FIRST_FAILURES - 1):
        session.finish(KEYS[0], None, stored=False)
        session.check_failures()
    session.finish(KEYS[0], None, stored=False)
    with pytest.raises(EndpointError, match=r"3 of 8 calls \(test\) .* most often: it answered"):
        session.check_failures()


def test_more_failures_than_may_be_set_aside_stop_the_stage(session: Session) -> None:
    session.reasons["refused"] += 1
    session.finish(KEYS[1], REPLY, stored=False)
    for _ in range(4):
        session.finish(KEYS[0], None, stored=False)
        session.check_failures()
    session.finish(KEYS[0], None, stored=False)
    with pytest.raises(EndpointError, match="1 are done and kept; mend it and run `dvc repro`"):
        session.check_failures()
