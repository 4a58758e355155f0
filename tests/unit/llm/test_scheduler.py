"""The endpoint client against a server that misbehaves on purpose, kills, and other processes."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import Body
from faulty_endpoint import FAULTS, FaultyServer
from quip.llm import connection, reply_store, retries
from quip.llm.connection import LLM
from quip.llm.requests.chat import ModelReply, Request
from quip.runtime import paths
from quip.runtime.errors import EndpointError, ParamsError

Project = Callable[..., Path]

CHILD = """
import sys
from quip.llm import connection, reply_store, retries, scheduler
from quip.llm.requests.chat import Request
from quip.runtime.stage import run
retries.FIRST_WAIT = 0.01
scheduler.LOOK_SECONDS = 0.01
def main():
    rows = (Request((("user", f"question {i}"),), seed=i) for i in range(int(sys.argv[1])))
    with connection.connect("scripted") as model:
        for reply in model.ask(rows, "child", total=int(sys.argv[1])):
            print(reply.text if reply else None)
run(main)
"""


def requests(n: int, logprobs: int | None = None) -> Iterator[Request]:
    return (Request((("user", f"question {i}"),), seed=i, top_logprobs=logprobs) for i in range(n))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.02)


def configure(project: Project, server: FaultyServer, **entry: Any) -> Path:
    entry = {"base_url": server.url, "model": "m", "timeout": 5, "concurrency": 16, **entry}
    return project(endpoints={"scripted": entry})


def ask(n: int, logprobs: int | None = None, what: str = "test") -> list[ModelReply | None]:
    with connection.connect("scripted") as model:
        return list(model.ask(requests(n, logprobs), what, total=n))


def calls() -> Counter[str]:
    store = reply_store.open_store()
    try:
        return Counter(record.key for record in store.records() if record.kind == "call")
    finally:
        store.close()


def content(replies: list[ModelReply | None]) -> list[Any]:
    return [reply and (reply.text, reply.top_logprobs) for reply in replies]


def child(n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(n)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_every_row_is_answered_through_every_fault_as_by_a_healthy_server(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 2000
    with FaultyServer() as healthy:
        configure(project, healthy, model="model-a")
        expected = content(ask(n, logprobs=3))
    paths.state("calls.journal").unlink()
    with FaultyServer(faults=True) as server:
        configure(project, server, model="model-a", timeout=1, retries=12)
        server.restart_at = 700
        assert content(ask(n, logprobs=3)) == expected
        assert None not in expected
        assert {name for name in server.said if name != "good"} == set(FAULTS)
        assert sum(server.said.values()) - server.said["good"] > 0.2 * n
        assert len(calls()) == n
        twice = sum(count > 1 for count in server.answered.values())
        assert twice <= 16, "only a reply in flight at the restart may be paid twice"


def test_kill_9_at_any_moment_loses_only_calls_in_flight(project: Project) -> None:
    n, kills, concurrency = 120, 20, 4
    luck = random.Random(1)
    with FaultyServer(delay=0.02) as server:
        configure(project, server, concurrency=concurrency)
        lost = 0
        for _ in range(kills):
            aim = server.requests + luck.randrange(1, 8)
            process = child(n)
            while server.requests < aim and process.poll() is None:
                time.sleep(0.002)
            time.sleep(luck.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            lost += concurrency
        last = child(n)
        said, _ = last.communicate()
        assert last.returncode == 0
        assert len(calls()) == n
        assert sum(server.answered.values()) <= n + lost
        answered = [line for line in said.splitlines() if line.startswith("answer")]
        paths.state("calls.journal").unlink()
        alone, _ = child(n).communicate()
        assert answered == [line for line in alone.splitlines() if line.startswith("answer")]
        assert len(answered) == n


def test_two_processes_pay_each_row_once(project: Project) -> None:
    with FaultyServer(delay=0.02) as server:
        configure(project, server, concurrency=8)
        both = [child(150), child(150)]
        outputs = [process.communicate()[0] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert set(server.answered.values()) == {1}
        assert len(server.answered) == 150
        texts = [[t for t in said.splitlines() if t.startswith("answer")] for said in outputs]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 150


def test_a_slow_body_ends_at_the_deadline(project: Project) -> None:
    with FaultyServer(faults=True) as server:
        server.draw = lambda key: "drip"  # type: ignore[method-assign]
        configure(project, server, timeout=0.3, retries=1)
        began = time.monotonic()
        with pytest.raises(EndpointError, match=r"no answer within 0\.3 s"):
            ask(1)
        assert server.requests == 2
        assert time.monotonic() - began < 20  # one byte each 0.25 s would take more than a minute


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, r"refused the key in api_key_env \(not set\) \(no entry\)"),
        (403, "refused the key"),
        (404, "does not know the model 'm'"),
        (400, r"refused the request, status 400 \(no entry\)"),
    ],
)
def test_an_error_of_the_endpoint_stops_at_once(project: Project, status: int, says: str) -> None:
    with FaultyServer() as server:
        server.answer = lambda body: (status, b'{"error": {"message": "no entry"}}', {})
        configure(project, server, concurrency=1)
        with pytest.raises(EndpointError, match=says) as caught:
            ask(500)
        assert server.requests <= 4
        assert caught.value.exit_code == 3


def test_rows_that_fail_together_end_in_one_line(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9/v1", "model": "m", "retries": 0}
    project(endpoints={"scripted": nowhere})
    with pytest.raises(EndpointError, match="nothing answers there"):
        ask(8)
    gc.collect()
    assert not caplog.records


def test_used_up_credit_is_not_waited_for(project: Project) -> None:
    with FaultyServer() as server:
        body = b'{"error": {"code": "insufficient_quota", "message": "top up"}}'
        server.answer = lambda _: (429, body, {})
        configure(project, server)
        with pytest.raises(EndpointError, match=r"its credit is used up \(insufficient_quota top"):
            ask(1)
        assert server.requests == 1


def test_retry_after_is_honoured(project: Project) -> None:
    times: list[float] = []

    def answer(body: Body) -> tuple[int, bytes, dict[str, str]] | None:
        times.append(time.monotonic())
        return (429, b"{}", {"Retry-After": "1"}) if len(times) == 1 else None

    with FaultyServer() as server:
        server.answer = answer
        configure(project, server, concurrency=1)
        assert None not in ask(3)
    assert times[1] - times[0] >= 1.0


def test_an_endpoint_that_asks_to_wait_for_hours_stops_the_stage(project: Project) -> None:
    with FaultyServer() as server:
        server.answer = lambda body: (429, b"{}", {"Retry-After": "36000"})
        configure(project, server)
        with pytest.raises(EndpointError, match=r"asks to wait 10\.0 hours"):
            ask(1)


def test_a_stubborn_row_is_set_aside_and_counted(project: Project) -> None:
    def answer(body: Body) -> tuple[int, bytes, dict[str, str]] | None:
        return (200, b"<html>", {}) if body["seed"] == 7 else None

    with FaultyServer() as server:
        server.answer = answer
        configure(project, server, retries=2)
        with connection.connect("scripted") as model:
            replies = list(model.ask(requests(60), "test", total=60))
            spent = model.spent()
        assert [i for i, reply in enumerate(replies) if reply is None] == [7]
        assert (spent["failed"], spent["retries"], spent["calls"]) == (1, 2, 59)


def test_a_row_that_is_refused_is_asked_once_and_never_stored(project: Project) -> None:
    refusal = (
        b'{"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": null, '
        b'"refusal": "not this one"}}], "usage": {"prompt_tokens": 4, "completion_tokens": 3}}'
    )
    with FaultyServer() as server:
        server.answer = lambda body: (200, refusal, {}) if body["seed"] == 3 else None
        configure(project, server)
        with connection.connect("scripted") as model:
            replies = list(model.ask(requests(60), "test", total=60))
            assert model.spent()["refused"] == 1
        assert replies[3] is None
        assert server.requests == 60
        assert len(calls()) == 59


def test_a_cut_off_reply_counts_only_where_the_request_says_so(project: Project) -> None:
    body = (
        b'{"choices": [{"index": 0, "finish_reason": "length", "message": {"content": "half"}}],'
        b' "usage": {"prompt_tokens": 4, "completion_tokens": 3}}'
    )
    with FaultyServer() as server:
        server.answer = lambda _: (200, body, {})
        configure(project, server, retries=1)
        with pytest.raises(EndpointError, match=r"cut off at max_tokens \(256\)"):
            ask(1)
        assert not calls()
        with connection.connect("scripted") as model:
            wanted = Request((("user", "q"),), cut_off=True)
            [reply] = model.ask([wanted], "test")
        assert reply
        assert (reply.text, reply.finish_reason) == ("half", "length")


def test_a_budget_stops_before_the_call_that_would_pass_it(project: Project) -> None:
    with FaultyServer() as server:
        entry = {"base_url": server.url, "model": "m", "price_in": 1000, "price_out": 1000}
        project(endpoints={"scripted": entry}, budget={"money": 0.5})
        with pytest.raises(EndpointError, match=r"budget.money is 0.5: 0\.\d+ is spent") as caught:
            ask(100)
        assert caught.value.exit_code == 3
        kept = len(calls())
        store = reply_store.open_store()
        assert 0.015 * kept == pytest.approx(store.money)
        assert 0.5 - 0.28 - 0.015 <= store.money <= 0.5
        store.close()
        project(endpoints={"scripted": entry}, budget={"money": 5.0})
        assert None not in ask(100)
        assert sum(server.answered.values()) == 100


def test_a_budget_without_prices_is_a_mistake(project: Project) -> None:
    with FaultyServer() as server:
        project(endpoints={"scripted": {"base_url": server.url, "model": "m"}}, budget={"money": 1})
        with pytest.raises(ParamsError, match=r"budget.money needs endpoints.scripted.price_in"):
            ask(1)


def test_calls_are_spaced_under_the_allowed_rate(project: Project) -> None:
    with FaultyServer() as server:
        configure(project, server, rpm=600)
        began = time.monotonic()
        ask(50)
        # ten a second, and three seconds' worth of them at once
        assert time.monotonic() - began >= (50 - 1) / 10 - asking_burst() - 0.1


def asking_burst() -> float:
    from quip.llm.rate_limit import BURST_SECONDS

    return BURST_SECONDS


def test_equal_requests_are_asked_once(project: Project) -> None:
    with FaultyServer(delay=0.01) as server:
        configure(project, server)
        with connection.connect("scripted") as model:
            twins = [Request((("user", "same"),))] * 10
            replies = list(model.ask(twins, "test"))
        assert server.requests == 1
        assert len({reply.text for reply in replies if reply}) == 1
        assert None not in replies


def test_one_token_calls_of_the_embedded_engine_run_one_at_a_time(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots would each read the text that both orders of a comparison share."""
    from contextlib import nullcontext

    with FaultyServer(delay=0.005) as server:
        project(endpoints={"scripted": {"base_url": "embedded", "model": "m", "concurrency": 6}})
        monkeypatch.setattr(LLM, "address", lambda self: nullcontext(server.url))
        with connection.connect("scripted") as model:
            one = (Request((("user", str(i)),), max_tokens=1) for i in range(12))
            list(model.ask(one, "critic", total=12))
        assert server.most_in_flight == 1
        ask(24)
        assert server.most_in_flight == 6


def test_no_key_is_written_anywhere(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-test-CANARY")
    echo = b'{"error": {"message": "Incorrect API key provided: sk-test-CANARY"}}'
    with FaultyServer() as server:
        folder = configure(project, server, api_key_env="SOME_KEY", retries=0)
        ask(3)
        for status in (401, 400, 500, 200):
            server.answer = lambda body, status=status: (status, echo, {})
            with pytest.raises(EndpointError) as caught:
                ask(4)
            assert "CANARY" not in str(caught.value)
    said = capfd.readouterr()
    assert "CANARY" not in said.out + said.err
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "calls.journal" for path in files)
    assert not any(b"CANARY" in path.read_bytes() for path in files)


def test_a_key_may_stand_in_the_ignored_file(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with FaultyServer() as server:
        folder = configure(project, server, api_key_env="SOME_KEY")
        (folder / ".env").write_text("SOME_KEY=from-a-file\n")
        assert None not in ask(1)


def test_a_full_disk_stops_the_stage_and_nothing_is_asked_twice(project: Project) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n" + CHILD
    with FaultyServer() as server:
        configure(project, server, concurrency=2)
        command = [sys.executable, "-c", code, "60"]
        full = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
        assert full.returncode == 2
        assert "the disk is full" in full.stderr
        assert "Traceback" not in full.stderr
        kept = len(calls())
        assert 5 < kept < 60
        again = child(60)
        again.communicate()
        assert again.returncode == 0
        assert sum(server.answered.values()) <= 60 + 2
        assert len(calls()) == 60
