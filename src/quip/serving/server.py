"""HTTP server of `quip serve`: an OpenAI-compatible endpoint, and a page to compare and vote.

The last message of role "user" is the literal sentence; other messages are ignored. Without a
temperature (or at 0) the first choice is the answer by which the student was judged. Request
fields that a small student cannot honour (tools, log-probabilities, ...) are refused by name, and
every error has the shape of OpenAI's API.
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
from quip.serving.loaded_models import LoadedModel

MAX_TOKENS = 256
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
    """The fields of a chat completion request that a student can honour."""

    model: str
    messages: list[Message] = Field(min_length=1)
    n: int = Field(1, ge=1, le=16)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS)
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None


class Compare(Body):
    text: Text
    attempt: int = Field(0, ge=0)
    """0 shows the beam-search answers that are judged; 1, 2, ... show samples."""


class Vote(Body):
    id: str
    choice: Choice


class ApiError(Exception):
    """An error of a request, sent in the API's error shape."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def make_app(models: Sequence[LoadedModel], votes: Path) -> FastAPI:
    """The application for these models; the bare model name means the first of them."""
    app = FastAPI(title="quip", docs_url=None, redoc_url=None)
    app.state.models = models_by_name(models)
    app.state.pair = list(models[:2])
    app.state.batcher, app.state.ballot = Batcher(), Ballot(votes)
    app.state.started = int(time.time())
    app.get("/v1/models")(list_models)
    app.get("/v1/models/{name:path}")(get_model)
    app.post("/v1/chat/completions")(create_completion)
    app.get("/", response_class=HTMLResponse)(page)
    app.post("/api/compare")(compare)
    app.post("/api/vote")(vote)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(Busy, on_busy)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(Exception, on_failure)
    return app


def models_by_name(models: Sequence[LoadedModel]) -> dict[str, LoadedModel]:
    bare = models[0].name.partition("@")[0].partition("/")[0]
    return {**{model.name: model for model in models}, bare: models[0]}


# ---- the API -------------------------------------------------------------------------------


def model_entry(name: str, started: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": started, "owned_by": "quip"}


async def list_models(request: Request) -> dict[str, Any]:
    state = request.app.state
    return {"object": "list", "data": [model_entry(name, state.started) for name in state.models]}


async def get_model(request: Request, name: str) -> dict[str, Any]:
    find_model(request.app.state.models, name)
    return model_entry(name, request.app.state.started)


def find_model(models: Mapping[str, LoadedModel], name: str) -> LoadedModel:
    if name not in models:
        known = ", ".join(models)
        raise ApiError(
            404, f"no model '{name}' here; there are: {known}", "model", "model_not_found"
        )
    return models[name]


async def create_completion(request: Request, chat: Chat) -> Response:
    """POST /v1/chat/completions."""
    model = find_model(request.app.state.models, chat.model)
    limit = chat.max_completion_tokens or chat.max_tokens or model.max_new_tokens
    literal = last_user_text(chat.messages)
    read = count_tokens(model, prompt(literal))
    check_length(model, read, limit)
    texts = await generate(request, model, literal, chat, limit)
    completion = Completion(model, texts, read, limit)
    if chat.stream:
        usage = bool(chat.stream_options and chat.stream_options.include_usage)
        return StreamingResponse(completion.events(usage), media_type="text/event-stream")
    return JSONResponse(completion.document())


def last_user_text(messages: Sequence[Message]) -> str:
    texts = [message.text() for message in messages if message.role == "user"]
    literal = " ".join(texts[-1].split()) if texts else ""
    if not literal:
        raise ApiError(
            400, "the last user message must hold the sentence to paraphrase", "messages"
        )
    return literal


def count_tokens(model: LoadedModel, text: str) -> int:
    """The number of tokens of `text`, by the tokenizer's backend: the tokenizer itself switches
    padding off to read one text, while the batch of another thread needs it."""
    return len(model.student.tokenizer.backend_tokenizer.encode(text))


def check_length(model: LoadedModel, read: int, limit: int) -> None:
    room = getattr(model.student.model.config, "max_position_embeddings", None)
    if room and read + limit > room:
        message = f"{read} tokens to read and up to {limit} to write exceed this model's {room}"
        raise ApiError(400, message, "messages", "context_length_exceeded")


async def generate(
    request: Request, model: LoadedModel, literal: str, chat: Chat, limit: int
) -> list[str]:
    seed = chat.seed if chat.seed is not None else random.getrandbits(31)
    settings = Settings(chat.n, chat.temperature or 0.0, chat.top_p or 0.95, limit)
    job = Job(model, literal, seed, settings)
    return await asyncio.wrap_future(request.app.state.batcher.submit(job))


class Completion:
    """A finished completion, as one document or as the events of a stream.

    Texts are generated in a batch, and by beam search, which fixes the first word last. So a
    stream starts when the text is complete, and then sends it word by word.
    """

    def __init__(self, model: LoadedModel, texts: Sequence[str], read: int, limit: int) -> None:
        self.texts = texts
        lengths = [count_tokens(model, text) for text in texts]
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
            "model": model.name,
        }

    def document(self) -> dict[str, Any]:
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
            yield self.event([choice_delta(index, {"role": "assistant", "content": ""})])
            for number, word in enumerate(text.split(" ")):
                yield self.event(
                    [choice_delta(index, {"content": f"{' ' if number else ''}{word}"})]
                )
            yield self.event([choice_delta(index, {}, end)])
        if usage:
            yield self.event([], usage=self.usage)
        yield "data: [DONE]\n\n"

    def event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**self.head, "object": "chat.completion.chunk", "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


def choice_delta(index: int, content: dict[str, str], end: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": content, "logprobs": None, "finish_reason": end}


# ---- the page ------------------------------------------------------------------------------


async def page() -> str:
    return files("quip.serving").joinpath("paraphrase_page.html").read_text(encoding="utf-8")


async def compare(request: Request, body: Compare) -> dict[str, Any]:
    """The texts of two models for one sentence, in random order; of one model when only one is
    served."""
    pair = request.app.state.pair
    literal = last_user_text([Message(role="user", content=body.text)])
    texts = [await sample_text(request, model, literal, body.attempt) for model in pair]
    sides = list(zip(texts, [model.label for model in pair], strict=True))
    random.shuffle(sides)
    if len(sides) < 2:
        return {"id": None, "left": sides[0][0], "right": None}
    (left, left_label), (right, right_label) = sides
    shown = ShownPair(literal, left, right, left_label, right_label)
    return {"id": request.app.state.ballot.show(shown), "left": left, "right": right}


async def sample_text(request: Request, model: LoadedModel, literal: str, number: int) -> str:
    check_length(model, count_tokens(model, prompt(literal)), model.max_new_tokens)
    settings = Settings(1, 0.9 if number else 0.0, 0.95, model.max_new_tokens)
    job = Job(model, literal, number, settings)
    return (await asyncio.wrap_future(request.app.state.batcher.submit(job)))[0]


def vote(request: Request, body: Vote) -> dict[str, Any]:
    """Save a vote and return which model wrote which text.

    A plain function: FastAPI runs it in a thread, so that writing to disk blocks no other request.
    """
    found = request.app.state.ballot.vote(body.id, body.choice)
    if found is None:
        raise ApiError(404, "this comparison is unknown or already has a vote", "id")
    shown, saved = found
    return {"saved": saved, "left": shown.left_label, "right": shown.right_label}


# ---- errors in the API's shape -------------------------------------------------------------


def error_response(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status)


async def on_api_error(request: Request, error: Any) -> JSONResponse:
    return error_response(error.status, str(error), error.param, error.code)


async def on_busy(request: Request, error: Exception) -> JSONResponse:
    response = error_response(503, str(error), code="overloaded")
    response.headers["Retry-After"] = "2"
    return response


async def on_invalid(request: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(400, "the body is not JSON")
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    if first["type"] == "extra_forbidden":
        return error_response(
            400, f"this model cannot honour '{param}'", param, "unsupported_parameter"
        )
    return error_response(400, f"{param or 'body'}: {first['msg']}", param, "invalid_value")


async def on_http_error(request: Request, error: Any) -> JSONResponse:
    message = f"{error.detail}: {request.method} {request.url.path}"
    return error_response(error.status_code, message, code="unknown_url")


async def on_failure(request: Request, error: Exception) -> JSONResponse:
    return error_response(500, "the student could not answer; the server's log says why")
