"""`quip serve`: the student behind an OpenAI-compatible endpoint, and a page to compare and vote.

The last message of role "user" is the literal sentence; other messages are not read. Without a
temperature (or at 0) the first choice is the answer by which the student was judged. What a small
student cannot do (tools, log-probabilities, ...) is refused by name, never silently dropped, and
every error has the API's own shape.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.exceptions import HTTPException

from quip.data.votes import Ballot, Choice, ShownPair
from quip.models.student import prompt
from quip.serving.batching import Batcher, Busy, Job, Settings
from quip.serving.loaded_models import Voice

MOST_TOKENS = 256
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Part(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = None

    def text(self) -> str:
        parts = self.content
        return parts if isinstance(parts, str) else "".join(part.text for part in parts)


class StreamOptions(Body):
    include_usage: bool = False


class Chat(Body):
    """What of a chat completion request a student can honour."""

    model: str
    messages: list[Message] = Field(min_length=1)
    n: int = Field(1, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None


class Compare(Body):
    text: Text
    attempt: int = Field(0, ge=0)
    """0 shows the answers that are judged; 1, 2, ... samples."""


class Vote(Body):
    id: str
    choice: Choice


class Refusal(Exception):
    """An answer in the API's error shape."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def make_app(voices: Sequence[Voice], votes: Path) -> FastAPI:
    """The application for these voices (the first answers to the bare model name, too)."""
    app = FastAPI(title="quip", docs_url=None, redoc_url=None)
    app.state.voices = named(voices)
    app.state.pair = list(voices[:2])
    app.state.batcher, app.state.ballot = Batcher(), Ballot(votes)
    app.state.started = int(time.time())
    app.get("/v1/models")(models)
    app.get("/v1/models/{name:path}")(model)
    app.post("/v1/chat/completions")(complete)
    app.get("/", response_class=HTMLResponse)(page)
    app.post("/api/compare")(compare)
    app.post("/api/vote")(vote)
    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(Busy, busy)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, unknown_address)
    app.add_exception_handler(Exception, broken)
    return app


def named(voices: Sequence[Voice]) -> dict[str, Voice]:
    bare = voices[0].name.partition("@")[0].partition("/")[0]
    return {**{voice.name: voice for voice in voices}, bare: voices[0]}


# ---- the API -------------------------------------------------------------------------------


def card(name: str, started: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": started, "owned_by": "quip"}


async def models(request: Request) -> dict[str, Any]:
    state = request.app.state
    return {"object": "list", "data": [card(name, state.started) for name in state.voices]}


async def model(request: Request, name: str) -> dict[str, Any]:
    find(request.app.state.voices, name)
    return card(name, request.app.state.started)


def find(voices: Mapping[str, Voice], name: str) -> Voice:
    if name not in voices:
        known = ", ".join(voices)
        raise Refusal(
            404, f"no model '{name}' here; there are: {known}", "model", "model_not_found"
        )
    return voices[name]


async def complete(request: Request, chat: Chat) -> Response:
    """POST /v1/chat/completions."""
    voice = find(request.app.state.voices, chat.model)
    limit = chat.max_completion_tokens or chat.max_tokens or voice.max_new_tokens
    literal = literal_of(chat.messages)
    read = count(voice, prompt(literal))
    check_length(voice, read, limit)
    texts = await generate(request, voice, literal, chat, limit)
    answer = Answer(voice, texts, read, limit)
    if chat.stream:
        usage = bool(chat.stream_options and chat.stream_options.include_usage)
        return StreamingResponse(answer.events(usage), media_type="text/event-stream")
    return JSONResponse(answer.whole())


def literal_of(messages: Sequence[Message]) -> str:
    said = [message.text() for message in messages if message.role == "user"]
    literal = " ".join(said[-1].split()) if said else ""
    if not literal:
        raise Refusal(400, "the last user message must hold the sentence to say", "messages")
    return literal


def count(voice: Voice, text: str) -> int:
    return len(voice.student.tokenizer(text)["input_ids"])


def check_length(voice: Voice, read: int, limit: int) -> None:
    room = getattr(voice.student.model.config, "max_position_embeddings", None)
    if room and read + limit > room:
        message = f"{read} tokens to read and up to {limit} to write exceed this model's {room}"
        raise Refusal(400, message, "messages", "context_length_exceeded")


async def generate(
    request: Request, voice: Voice, literal: str, chat: Chat, limit: int
) -> list[str]:
    seed = chat.seed if chat.seed is not None else random.getrandbits(31)
    settings = Settings(chat.n, chat.temperature or 0.0, chat.top_p or 0.95, limit)
    job = Job(voice, literal, seed, settings)
    return await asyncio.wrap_future(request.app.state.batcher.ask(job))


class Answer:
    """A finished completion, as one document or as the events of a stream.

    An answer is one line made in a batch with others (and by beam search, which knows its first
    word last), so a stream starts when it is whole, and then gives it word by word.
    """

    def __init__(self, voice: Voice, texts: Sequence[str], read: int, limit: int) -> None:
        self.texts = texts
        lengths = [count(voice, text) for text in texts]
        self.ends = ["length" if length >= limit else "stop" for length in lengths]
        written = sum(lengths)
        self.usage = {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": voice.name,
        }

    def whole(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text},
                "logprobs": None,
                "finish_reason": end,
            }
            for index, (text, end) in enumerate(zip(self.texts, self.ends, strict=True))
        ]
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage}

    async def events(self, usage: bool) -> AsyncIterator[str]:
        for index, (text, end) in enumerate(zip(self.texts, self.ends, strict=True)):
            yield self.event([delta(index, {"role": "assistant", "content": ""})])
            for number, word in enumerate(text.split(" ")):
                yield self.event([delta(index, {"content": f"{' ' if number else ''}{word}"})])
            yield self.event([delta(index, {}, end)])
        if usage:
            yield self.event([], usage=self.usage)
        yield "data: [DONE]\n\n"

    def event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**self.head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def delta(index: int, content: dict[str, str], end: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": content, "logprobs": None, "finish_reason": end}


# ---- the page ------------------------------------------------------------------------------


async def page() -> str:
    return files("quip.serving").joinpath("paraphrase_page.html").read_text(encoding="utf-8")


async def compare(request: Request, body: Compare) -> dict[str, Any]:
    """Two versions on one sentence, in an order nobody knows; one version alone has no rival."""
    pair = request.app.state.pair
    literal = literal_of([Message(role="user", content=body.text)])
    texts = [await attempt(request, voice, literal, body.attempt) for voice in pair]
    sides = list(zip(texts, [voice.label for voice in pair], strict=True))
    random.shuffle(sides)
    if len(sides) < 2:
        return {"id": None, "left": sides[0][0], "right": None}
    (left, left_label), (right, right_label) = sides
    shown = ShownPair(literal, left, right, left_label, right_label)
    return {"id": request.app.state.ballot.show(shown), "left": left, "right": right}


async def attempt(request: Request, voice: Voice, literal: str, number: int) -> str:
    check_length(voice, count(voice, prompt(literal)), voice.max_new_tokens)
    settings = Settings(1, 0.9 if number else 0.0, 0.95, voice.max_new_tokens)
    job = Job(voice, literal, number, settings)
    return (await asyncio.wrap_future(request.app.state.batcher.ask(job)))[0]


def vote(request: Request, body: Vote) -> dict[str, Any]:
    """Keep a vote and tell who wrote which. A plain function, so that the disk holds up nobody."""
    found = request.app.state.ballot.vote(body.id, body.choice)
    if found is None:
        raise Refusal(404, "that comparison was voted on already, or is not known", "id")
    shown, saved = found
    return {"saved": saved, "left": shown.left_label, "right": shown.right_label}


# ---- errors in the API's shape -------------------------------------------------------------


def shaped(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status)


async def refused(request: Request, error: Any) -> JSONResponse:
    return shaped(error.status, str(error), error.param, error.code)


async def busy(request: Request, error: Exception) -> JSONResponse:
    response = shaped(503, str(error), code="overloaded")
    response.headers["Retry-After"] = "2"
    return response


async def invalid(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return shaped(400, "the body is not JSON")
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    if first["type"] == "extra_forbidden":
        return shaped(400, f"this model cannot honour '{param}'", param, "unsupported_parameter")
    return shaped(400, f"{param or 'body'}: {first['msg']}", param, "invalid_value")


async def unknown_address(request: Request, error: Any) -> JSONResponse:
    message = f"{error.detail}: {request.method} {request.url.path}"
    return shaped(error.status_code, message, code="unknown_url")


async def broken(request: Request, error: Exception) -> JSONResponse:
    return shaped(500, "the student could not answer; the server's log says why")
