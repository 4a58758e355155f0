"""A real chat endpoint on the loopback with scripted answers, and a scripted critic."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


class ChatServer:
    """A real chat endpoint on the loopback with scripted answers.

    `answer(body)` gives the status and the bytes for one call; `asked` and `keys` keep every body
    and every Authorization header in the order in which they came.
    """

    def __init__(self) -> None:
        self.asked: list[Body] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[Body], tuple[int, bytes]] = lambda body: chat("1. a\n2. b")
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                script.asked.append(body)
                script.keys.append(self.headers["Authorization"])
                status, content = script.answer(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def chat(text: str | None, logprobs: dict[str, float] | None = None) -> tuple[int, bytes]:
    """A well-formed reply; `logprobs` are the alternatives at its first token."""
    choice: Body = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": text}
    if logprobs is not None:
        top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]}
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
    return 200, json.dumps(reply).encode()


CRITIC_PROMPT = "--- user\nLiteral: {literal}\n1: {first}\n2: {second}\n"


def shown(body: Body) -> tuple[str, str, str]:
    """The literal, the first and the second text that a critic was shown in one call."""
    found = re.fullmatch(
        r"Literal: (.*)\n1: (.*)\n2: (.*)", body["messages"][-1]["content"], re.DOTALL
    )
    assert found, body
    return found[1], found[2], found[3]


def likes(score: Callable[[str], float], lean: float = 0.0) -> Callable[[Body], tuple[int, bytes]]:
    """A scripted critic: its log-odds for the first text are score(first) - score(second) + lean.

    It answers with log-probabilities where asked for, else with the likelier choice.
    """

    def answer(body: Body) -> tuple[int, bytes]:
        _, first, second = shown(body)
        odds = score(first) - score(second) + lean
        p = 1 / (1 + math.exp(-odds))
        text = "1" if p >= 0.5 else "2"
        logprobs = {"1": math.log(p), "2": math.log(1 - p), "The": -20.0}
        return chat(text, logprobs if body.get("logprobs") else None)

    return answer
