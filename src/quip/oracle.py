"""The large model behind an OpenAI-compatible chat endpoint: teacher, critic and judges alike.

The only importer of `openai`. Every reply is looked up in the call store first, checked before it
is believed, and stored the moment it arrives. `base_url: embedded` starts the engine in this
process, and only when something is not in the store.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm

from quip import engine, stage
from quip.errors import EndpointError, ParamsError
from quip.params import Section, check, nearest, read_params
from quip.store import CallStore, digest

BAD_REPLY_TRIES = 3
FAILED_SHARE = 0.02
"""A stage goes on while at most this share of its calls failed for good."""


class Endpoint(Section):
    """One entry of `endpoints:` in params.yaml. All but `model` and `logprobs` are speed or
    access, which change no result."""

    base_url: str
    model: str
    api_key_env: str | None = None
    logprobs: bool = True
    concurrency: int = 4
    timeout: float = 120.0
    retries: int = 4
    price_in: float = 0.0
    price_out: float = 0.0


@dataclass(frozen=True)
class Request:
    """One chat call: everything that determines its reply but the model."""

    messages: tuple[tuple[str, str], ...]
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    top_logprobs: int | None = None

    def key(self, model: str) -> str:
        value = [model, self.messages, self.temperature, self.top_p, self.max_tokens, self.seed]
        return digest(json.dumps([*value, self.top_logprobs]))


class ModelReply(BaseModel):
    """A checked reply. `top_logprobs` are the alternatives at the first token, if asked for."""

    text: str
    finish_reason: str
    top_logprobs: list[tuple[str, float]] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class BadReply(Exception):
    """A reply that is not one: an HTML page, no choices, no text, cut-off JSON."""


def endpoint(name: str) -> Endpoint:
    """The entry `name` of `endpoints:`; the environment may override its address
    (QUIP_BASE_URL_NAME)."""
    table = read_params().get("endpoints") or {}
    if name not in table:
        known = ", ".join(table) or "none"
        raise ParamsError(
            f"params.yaml: endpoint '{name}' is not under endpoints (known: {known})."
            f"{nearest(name, table)}"
        )
    found = check(table[name], Endpoint, f"endpoints.{name}")
    address = os.environ.get(f"QUIP_BASE_URL_{name.upper().replace('-', '_')}")
    return found.model_copy(update={"base_url": address}) if address else found


@dataclass
class Oracle:
    """Asks one endpoint. `ledger` counts what the rows needed, stored replies included."""

    name: str
    settings: Endpoint
    store: CallStore
    ledger: Counter[str] = field(default_factory=Counter)

    def ask(self, requests: Sequence[Request], what: str) -> list[ModelReply | None]:
        """The replies in the order of `requests`; None where a call failed for good.

        Raises EndpointError when the endpoint cannot be used at all, or when more than
        FAILED_SHARE of the calls failed. What was answered is in the store either way.
        """
        replies = [self.stored(request) for request in requests]
        missing = [i for i, reply in enumerate(replies) if reply is None]
        if missing:
            with self.address() as base_url:
                fresh = asyncio.run(
                    self.ask_all(base_url, [requests[i] for i in missing], what, len(requests))
                )
            for i, reply in zip(missing, fresh, strict=True):
                replies[i] = reply
        self.count(replies, fresh=len(missing))
        self.judge_failures(replies, what)
        return replies

    def stored(self, request: Request) -> ModelReply | None:
        text = self.store.get(request.key(self.settings.model))
        return None if text is None else ModelReply.model_validate_json(text)

    @contextmanager
    def address(self) -> Iterator[str]:
        if self.settings.base_url != "embedded":
            yield self.settings.base_url
            return
        with engine.serving(self.settings.model, self.settings.concurrency) as base_url:
            yield base_url

    async def ask_all(
        self, base_url: str, requests: Sequence[Request], what: str, total: int
    ) -> list[ModelReply | None]:
        client = self.client(base_url)
        gate = asyncio.Semaphore(self.slots(requests))
        with progress(what, total, done=total - len(requests)) as bar:

            async def one(request: Request) -> ModelReply | None:
                async with gate:
                    reply = await self.try_one(client, request)
                bar.update()
                return reply

            tasks = [asyncio.ensure_future(one(request)) for request in requests]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()
                await client.close()

    def slots(self, requests: Sequence[Request]) -> int:
        """Calls in flight. The embedded engine answers one-token questions one at a time: they are
        all reading, which two calls at once do not speed up, and the second order of a comparison
        then finds the first one's prefix read (measured: 1.08 s a call against 1.24 s)."""
        reading = all(request.max_tokens == 1 for request in requests)
        return 1 if self.settings.base_url == "embedded" and reading else self.settings.concurrency

    def client(self, base_url: str) -> Any:
        import openai

        return openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self.api_key(),
            max_retries=self.settings.retries,
            timeout=self.settings.timeout,
        )

    def api_key(self) -> str:
        name = self.settings.api_key_env
        if name is None:
            return "none"
        if not os.environ.get(name):
            raise EndpointError(
                f"endpoint '{self.name}': the environment variable {name} is not set. "
                f"`export {name}=...` and run `dvc repro` again."
            )
        return os.environ[name]

    async def try_one(self, client: Any, request: Request) -> ModelReply | None:
        for _ in range(BAD_REPLY_TRIES):
            try:
                async with asyncio.timeout(self.settings.timeout * (self.settings.retries + 1)):
                    reply = await self.call(client, request)
            except (BadReply, TimeoutError, json.JSONDecodeError):
                continue
            self.store.put(
                request.key(self.settings.model),
                self.settings.model,
                reply.model_dump_json(),
            )
            return reply
        return None

    async def call(self, client: Any, request: Request) -> ModelReply:
        import openai

        options: dict[str, Any] = {}
        if request.top_logprobs:
            options = {"logprobs": True, "top_logprobs": request.top_logprobs}
        try:
            answer = await client.chat.completions.create(
                model=self.settings.model,
                messages=[{"role": role, "content": text} for role, text in request.messages],
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_tokens,
                seed=request.seed,
                **options,
            )
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            raise self.unusable(error) from None
        return read_reply(answer)

    def unusable(self, error: Exception) -> EndpointError:
        status = getattr(error, "status_code", None)
        where = f"endpoint '{self.name}' ({self.settings.base_url})"
        hint = {
            401: f"it refused the key in {self.settings.api_key_env or 'api_key_env (not set)'}",
            403: f"it refused the key in {self.settings.api_key_env or 'api_key_env (not set)'}",
            404: f"it does not know the model '{self.settings.model}' or the path",
            400: f"it refused the request ({str(error)[:200]})",
        }.get(status or 0)
        why = hint or (f"it answered {status}" if status else "nothing answers there")
        return EndpointError(
            f"{where}: {why}, after {self.settings.retries + 1} tries. "
            f"{len(self.store):,} replies are kept in the call store; mend it and run `dvc repro`."
        )

    def count(self, replies: Sequence[ModelReply | None], fresh: int) -> None:
        for reply in replies:
            if reply is None:
                self.ledger["failed"] += 1
                continue
            self.ledger["calls"] += 1
            self.ledger["prompt_tokens"] += reply.prompt_tokens
            self.ledger["cached_tokens"] += reply.cached_tokens
            self.ledger["completion_tokens"] += reply.completion_tokens
        if fresh < len(replies):
            print(
                f"{self.name}: {len(replies) - fresh:,} of {len(replies):,} replies from the store"
            )

    def judge_failures(self, replies: Sequence[ModelReply | None], what: str) -> None:
        failed = sum(reply is None for reply in replies)
        if failed > FAILED_SHARE * len(replies):
            raise EndpointError(
                f"endpoint '{self.name}': {failed:,} of {len(replies):,} calls ({what}) gave no "
                f"readable reply. The other {len(replies) - failed:,} are kept; run `dvc repro` to "
                "ask for the rest again."
            )

    def spent(self) -> dict[str, float]:
        """The ledger with the money it stands for, in the currency of the prices."""
        money = (
            self.ledger["prompt_tokens"] * self.settings.price_in
            + self.ledger["completion_tokens"] * self.settings.price_out
        ) / 1e6
        keys = ("calls", "failed", "prompt_tokens", "cached_tokens", "completion_tokens")
        return {**{key: self.ledger[key] for key in keys}, "money": round(money, 6)}


def read_reply(answer: Any) -> ModelReply:
    """Check one answer of the client and keep what we need; BadReply when it is none."""
    choices = getattr(answer, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise BadReply(str(answer)[:200])
    choice, usage = choices[0], getattr(answer, "usage", None)
    text = choice.message.content or getattr(choice.message, "refusal", None) or ""
    if not text.strip():
        raise BadReply("the reply holds no text")
    return ModelReply(
        text=text,
        finish_reason=choice.finish_reason or "unknown",
        top_logprobs=first_token_logprobs(choice),
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
        cached_tokens=getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", 0)
        or 0,
    )


def first_token_logprobs(choice: Any) -> list[tuple[str, float]] | None:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content or not content[0].top_logprobs:
        return None
    return [(top.token, top.logprob) for top in content[0].top_logprobs]


def progress(what: str, total: int, done: int = 0) -> Any:
    """A bar with an estimate on a terminal, a line every 30 s elsewhere."""
    import sys

    quiet = not sys.stderr.isatty()
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        mininterval=30 if quiet else 0.3,
        ascii=quiet,
        smoothing=0.05,
        unit="call",
    )


@contextmanager
def connect(name: str) -> Iterator[Oracle]:
    """An Oracle for the endpoint `name` of params.yaml, over the project's call store."""
    store = CallStore(stage.state("calls.sqlite"))
    try:
        yield Oracle(name, endpoint(name), store)
    finally:
        store.close()
