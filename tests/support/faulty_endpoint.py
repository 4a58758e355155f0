"""A chat endpoint that misbehaves on purpose: a real HTTP server on the loopback.

Its answers are a pure function of the request; its faults one of the request and of how often that
was asked before, so that a run can be repeated. Also a program:
`python tests/support/faulty_endpoint.py DELAY` serves on a port that it prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from fake_endpoint import Body

FAULTS = {
    "429": 4.0,
    "429 with Retry-After": 4.0,
    "500": 4.0,
    "HTML 502": 3.0,
    "reset": 3.0,
    "short body": 1.5,
    "cut-off JSON": 3.0,
    "HTML 200": 2.0,
    "no choices": 1.0,
    "length": 1.0,
    "list": 1.0,
    "drip": 1.0,
    "wrong model": 0.5,
    "no logprobs": 0.5,
    "null content": 0.5,
}
"""Percent of the requests; 30 in all."""
MOST_FAULTS = 6
"""Of one request."""
ODD_BUT_GOOD = ("reordered", "text/plain", "no usage", "chunked")
"""Ways to answer that are unusual and right; one in ten answers takes one."""


def chance(*parts: object) -> float:
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def reply(body: Body) -> Body:
    """The one right answer to a request."""
    asked = json.dumps([body["messages"], body["seed"], body["model"]])
    choice: Body = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": f"answer {chance(asked):.12f}"}
    if body.get("logprobs"):
        top = [
            {"token": f" {n}", "logprob": -chance(asked, n)} for n in range(body["top_logprobs"])
        ]
        choice["logprobs"] = {"content": [{"token": " 0", "logprob": 0, "top_logprobs": top}]}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return {"model": f"hub/{body['model']}-2026-01-01", "choices": [choice], "usage": usage}


class LoopServer:
    """`with` a server: an event loop in a thread, from `open` (which sets `url`) to `close`."""

    url: str

    def __enter__(self) -> Self:
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.main(ready)), daemon=True)
        self.thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stopping.set)
        self.thread.join()

    async def main(self, ready: threading.Event) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        await self.open()
        ready.set()
        await self.stopping.wait()
        await self.close()

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class FaultyServer(LoopServer):
    """`with FaultyServer() as server:`; counts what it was asked and what it answered in full."""

    def __init__(self, faults: bool = False, delay: float = 0.0) -> None:
        self.faults, self.delay = faults, delay
        self.tries, self.said, self.answered = Counter[str](), Counter[str](), Counter[str]()
        self.in_flight = self.most_in_flight = self.requests = 0
        self.restart_at: int | None = None
        self.connections: set[asyncio.StreamWriter] = set()
        self.answer: Callable[[Body], tuple[int, bytes, dict[str, str]] | None] = lambda body: None

    async def open(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        self.server.close()
        for writer in self.connections:
            writer.transport.abort()

    async def restart(self) -> None:
        self.drop()
        await asyncio.sleep(0.5)
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                fields = {name.lower(): value for name, value in fields.items()}
                content = await reader.readexactly(int(fields.get("content-length", 0)))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self.respond(json.loads(content), writer)
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def respond(self, body: Body, writer: asyncio.StreamWriter) -> None:
        key = json.dumps(body, sort_keys=True)
        self.tries[key] += 1
        self.requests += 1
        if self.requests == self.restart_at:
            self.loop.create_task(self.restart())
        if self.delay:
            await asyncio.sleep(self.delay)
        scripted = self.answer(body)
        if scripted is not None:
            return await send(writer, *scripted)
        fault = self.draw(key) if self.faults else None
        self.said[fault or "good"] += 1
        if fault:
            return await self.misbehave(fault, body, writer)
        await self.behave(key, body, writer)

    def draw(self, key: str) -> str | None:
        if self.tries[key] > MOST_FAULTS:
            return None
        percent = 100 * chance("fault", key, self.tries[key])
        for name, share in FAULTS.items():
            percent -= share
            if percent < 0:
                return name
        return None

    async def behave(self, key: str, body: Body, writer: asyncio.StreamWriter) -> None:
        answer, headers = reply(body), {"Content-Type": "application/json"}
        way = int(10 * len(ODD_BUT_GOOD) * chance("way", key)) if self.faults else -1
        odd = ODD_BUT_GOOD[way] if 0 <= way < len(ODD_BUT_GOOD) else None
        if odd == "reordered":
            other = {"index": 1, "finish_reason": "stop", "message": {"content": "the other"}}
            answer["choices"] = [other, answer["choices"][0], answer["choices"][0]]
        if odd == "no usage":
            del answer["usage"]
        if odd == "text/plain":
            headers["Content-Type"] = "text/plain"
        await send(writer, 200, json.dumps(answer).encode(), headers, chunked=odd == "chunked")
        self.answered[key] += 1

    async def misbehave(self, fault: str, body: Body, writer: asyncio.StreamWriter) -> None:
        good = json.dumps(reply(body)).encode()
        html = b"<!doctype html><title>Bad gateway</title>"
        if fault == "reset":
            writer.transport.abort()
        elif fault == "short body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(good) + good[:40])
            await writer.drain()
            writer.transport.close()
        elif fault == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(good))
            for byte in good:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.25)
        elif fault.startswith(("429", "500", "HTML 502")):
            status = {"4": 429, "5": 500, "H": 502}[fault[0]]
            headers = {"Retry-After": "0.05"} if "Retry-After" in fault else {}
            await send(writer, status, html if fault[0] == "H" else b'{"error": {}}', headers)
        else:
            await send(writer, 200, html if fault == "HTML 200" else spoiled(fault, body), {})


def spoiled(fault: str, body: Body) -> bytes:
    answer = reply(body)
    choice = answer["choices"][0]
    if fault == "cut-off JSON":
        return json.dumps(answer).encode()[:-30]
    if fault == "list":
        return json.dumps([answer]).encode()
    if fault == "no choices":
        answer["choices"] = []
    elif fault == "length":
        choice |= {"finish_reason": "length", "message": {"content": "answ"}}
    elif fault == "wrong model":
        answer["model"] = "someone-else"
    elif fault == "null content":
        choice["message"]["content"] = None
    elif fault == "no logprobs":
        choice["logprobs"] = None
        if not body.get("logprobs"):
            answer["choices"] = None
    return json.dumps(answer).encode()


async def send(
    writer: asyncio.StreamWriter,
    status: int,
    content: bytes,
    headers: dict[str, str],
    chunked: bool = False,
) -> None:
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items())]
    lines.append("Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if chunked else content
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()


if __name__ == "__main__":
    import sys
    import time

    with FaultyServer(delay=float(sys.argv[1])) as served:
        print(served.url, flush=True)
        while True:
            time.sleep(3600)
