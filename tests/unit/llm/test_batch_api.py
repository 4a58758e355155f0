"""Batches: submitted once, collected later; rows they fail to answer are asked online."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fake_endpoint import Body
from faulty_endpoint import LoopServer, reply
from quip.llm import batch_api, connection
from quip.llm.requests.chat import ModelReply, Request
from quip.runtime import paths
from quip.runtime.errors import EndpointError

Project = Callable[..., Path]
N = 12


class BatchServer(LoopServer):
    """An endpoint with files and batches. A batch is answered by `finish`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.online: list[Body] = []
        self.spoil: Callable[[dict[str, Any]], bytes | None] = good

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/files", self.upload)
        app.router.add_get("/v1/files/{name}/content", self.download)
        app.router.add_post("/v1/batches", self.create)
        app.router.add_get("/v1/batches", self.known)
        app.router.add_get("/v1/batches/{name}", self.look)
        app.router.add_post("/v1/chat/completions", self.chat)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    async def close(self) -> None:
        await self.runner.cleanup()

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        name = f"file-{len(self.files)}"
        self.files[name] = file.file.read()
        return web.json_response({"id": name})

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["name"]])

    async def create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {"id": name, "status": "validating", **asked}
        return web.json_response(self.batches[name])

    async def known(self, request: web.Request) -> web.Response:
        return web.json_response({"data": list(self.batches.values())})

    async def look(self, request: web.Request) -> web.Response:
        return web.json_response(self.batches[request.match_info["name"]])

    async def chat(self, request: web.Request) -> web.Response:
        self.online.append(await request.json())
        return web.json_response(reply(self.online[-1]))

    def finish(self, status: str = "completed") -> None:
        for name, found in self.batches.items():
            lines = self.files[found["input_file_id"]].splitlines()
            said = [line for line in (self.spoil(json.loads(row)) for row in lines) if line]
            self.files[f"out-{name}"] = b"\n".join(reversed(said))
            found.update(status=status, output_file_id=f"out-{name}")


def good(row: dict[str, Any]) -> bytes | None:
    answered = {"status_code": 200, "body": reply(row["body"])}
    return json.dumps({"custom_id": row["custom_id"], "response": answered}).encode()


def requests(n: int = N) -> list[Request]:
    return [Request((("user", f"question {i}"),), seed=i) for i in range(n)]


def ask(n: int = N) -> list[ModelReply | None]:
    with connection.connect("scripted") as model:
        return list(model.ask(requests(n), "test"))


def texts(n: int = N) -> list[str]:
    found = [reply(request.body("m")) for request in requests(n)]
    return [answer["choices"][0]["message"]["content"] for answer in found]


@pytest.fixture
def server(project: Project) -> Iterator[BatchServer]:
    with BatchServer() as made:
        entry = {"base_url": made.url, "model": "m", "batch": True, "retries": 1}
        project(endpoints={"scripted": {**entry, "price_in": 1000, "price_out": 1000}})
        yield made


def left(n: int = N) -> EndpointError:
    with pytest.raises(EndpointError, match=r"are in batches that are not ready") as caught:
        ask(n)
    assert caught.value.exit_code == 3
    return caught.value


def test_a_batch_is_submitted_once_and_collected_later(server: BatchServer) -> None:
    assert "12 rows (test)" in str(left())
    left()
    assert len(server.batches) == 1
    server.finish()
    assert [reply and reply.text for reply in ask()] == texts()
    assert not server.online
    ask()
    assert len(server.batches) == 1


def test_a_batch_costs_half_and_is_counted(server: BatchServer) -> None:
    left()
    server.finish()
    with connection.connect("scripted") as model:
        list(model.ask(requests(), "test"))
        spent = model.spent()
    assert spent["paid"] == spent["money"] == pytest.approx(N * 15 * 1000 / 1e6 / 2)


def test_rows_a_batch_failed_to_answer_are_asked_online(server: BatchServer) -> None:
    def spoil(row: dict[str, Any]) -> bytes | None:
        if row["body"]["seed"] == 1:
            return None
        if row["body"]["seed"] == 2:
            return b'{"custom_id": "' + row["custom_id"].encode() + b'", "error": {"code": "x"}}'
        whole = good(row)
        assert whole
        return whole[:-40] if row["body"]["seed"] == 3 else whole

    server.spoil = spoil
    left()
    server.finish("expired")
    assert [reply and reply.text for reply in ask()] == texts()
    assert sorted(body["seed"] for body in server.online) == [1, 2, 3]


def test_rows_that_came_later_are_a_batch_of_their_own(server: BatchServer) -> None:
    left(5)
    left(8)
    sizes = [len(server.files[b["input_file_id"]].splitlines()) for b in server.batches.values()]
    assert sizes == [5, 3]
    server.finish()
    assert [reply and reply.text for reply in ask(8)] == texts(8)


def test_a_kill_between_submission_and_its_record_submits_nothing_twice(
    server: BatchServer,
) -> None:
    left()
    paths.state("calls.journal").unlink()
    left()
    assert len(server.batches) == 1


def test_many_rows_are_several_batches(
    server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MAX_ROWS", 5)
    left()
    assert len(server.batches) == 3
    server.finish()
    assert None not in ask()


def test_a_budget_stops_before_the_batch_that_could_pass_it(
    server: BatchServer, project: Project
) -> None:
    entry = {"base_url": server.url, "model": "m", "batch": True, "price_in": 1, "price_out": 1000}
    project(endpoints={"scripted": entry}, budget={"money": 1.0})
    with pytest.raises(EndpointError, match=r"budget.money is 1: .* the next one 1\.5"):
        ask()
    assert not server.batches


def test_a_batch_may_be_a_file_that_is_answered_by_hand(project: Project) -> None:
    project(endpoints={"scripted": {"base_url": "files", "model": "m"}})
    assert "`vllm run-batch -i " in str(left())
    [file] = paths.state("batches").glob("*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["url"] for row in rows} == {"/v1/chat/completions"}
    assert [row["custom_id"] for row in rows] == [request.key("m") for request in requests()]
    answers = [good(row) or b"" for row in rows]
    file.with_suffix(".out.jsonl").write_bytes(b"\n".join(answers))
    assert [reply and reply.text for reply in ask()] == texts()
