"""Routes of an endpoint: the path, the posted document and the check of the reply for five calls.

CHAT      the plain chat call
REASONED  a chat call that ends with a choice; the log-probabilities at the choice's token
ECHO      the log-probability of a text after another: the endpoint returns the prompt with the
          log-probabilities of its tokens (`echo` of /completions: vLLM, SGLang, llama-cpp-python)
FORCED    the same for llama.cpp's own server, the embedded engine, which refuses `echo`: a grammar
          of exactly the tokens of the text forces the model to write them. Their log-probabilities
          are the model's own, from before the grammar
TOKENS    the token ids of a text: llama.cpp's /tokenize, which runs no model
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from quip.llm.requests.chat import (
    BadReply,
    ModelReply,
    Request,
    document,
    first_choice,
    read_reply,
    usage_of,
)
from quip.runtime.errors import EndpointError


class Route(NamedTuple):
    """The path of a request, the function for its document, and the function that reads its
    answer."""

    path: str
    body: Callable[[Request, str], dict[str, Any]]
    read: Callable[[bytes, Request, str | None], ModelReply]


CHAT = Route("/chat/completions", Request.body, read_reply)

FINAL = re.compile(r"(?<![\w.,/\u2212-])(?<!\bor )(?<!\band )([12])\W*$")
LEAST = -100.0
"""A log-probability of minus infinity, as a number."""


NO_ECHO = (
    "it returns no log-probabilities of its prompt (`echo` and `logprobs` of /completions), which "
    "critic.kind 'cloze' needs. vLLM, SGLang and llama-cpp-python do, as does the embedded engine"
)


class NoEcho(EndpointError):
    """The endpoint gives no log-probabilities of its prompt, so no row can be answered."""


# ---- a choice at the end of an answer --------------------------------------------------------


def final_choice(text: str) -> str | None:
    """The choice at the end of an answer, "1" or "2"; None when it ends otherwise."""
    found = FINAL.search(text)
    return found[1] if found else None


def read_choice(content: bytes, request: Request, model: str | None) -> ModelReply:
    """`read_reply` with the alternatives at the token of the final choice.

    There are none when the answer does not end with a choice, or the choice is no token of its own.
    """
    reply = read_reply(content, request, model)
    top = None
    if request.top_logprobs and final_choice(reply.text):
        top = alternatives_at_choice(tokens_of(first_choice(document(content))))
    return reply.model_copy(update={"top_logprobs": top})


def alternatives_at_choice(tokens: Sequence[Mapping[str, Any]]) -> list[tuple[str, float]] | None:
    """The alternatives at the last token that is a choice; None when words follow it."""
    for entry in reversed(tokens):
        if str(entry["token"]).strip() in ("1", "2"):
            return [(str(e["token"]), float(e["logprob"])) for e in entry["top_logprobs"]]
        if re.search(r"\w", re.sub(r"<\|.*?\|>", "", str(entry["token"]))):
            return None
    return None


def tokens_of(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens of an answer with their log-probabilities, [] when there are none."""
    found = choice.get("logprobs")
    tokens = found.get("content") if isinstance(found, dict) else None
    return tokens if isinstance(tokens, list) else []


# ---- how likely a text is --------------------------------------------------------------------


def scoring_request(before: str, text: str, tokens: Sequence[int] | None = None) -> Request:
    """The request for the log-probabilities of `text` after `before`: for route FORCED with the
    `tokens` of the text, else for ECHO."""
    messages = (("before", before), ("text", text))
    if tokens is None:
        return Request(messages, max_tokens=1, top_logprobs=1, cut_off=True)
    ids = ("tokens", " ".join(map(str, tokens)))
    return Request((*messages, ids), max_tokens=len(tokens) + 1, top_logprobs=1, cut_off=True)


def tokenize_request(text: str) -> Request:
    return Request((("tokenize", text),), max_tokens=1)


def tokens_body(request: Request, _: str) -> dict[str, Any]:
    return {"content": request.messages[0][1]}


def read_tokens(content: bytes, request: Request, _: str | None) -> ModelReply:
    """The token ids of an answer of /tokenize, as text separated by spaces."""
    tokens = document(content).get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise BadReply("no tokens in the reply")
    return ModelReply(text=" ".join(map(str, tokens)), finish_reason="tokenized")


def echo_body(request: Request, model: str) -> dict[str, Any]:
    return {**completion(request, model), "prompt": "".join(parts(request)), "echo": True}


def forced_body(request: Request, model: str) -> dict[str, Any]:
    before, _, tokens = (part for _, part in request.messages)
    grammar = f"root ::= {' '.join(f'<[{token}]>' for token in tokens.split())}"
    return {**completion(request, model), "prompt": before, "grammar": grammar}


def completion(request: Request, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "max_tokens": request.max_tokens,
        "temperature": 0.0,
        "seed": request.seed,
        "logprobs": request.top_logprobs,
    }


def parts(request: Request) -> tuple[str, str]:
    before, text, *_ = (part for _, part in request.messages)
    return before, text


def read_echo(content: bytes, request: Request, _: str | None) -> ModelReply:
    """The log-probabilities of the tokens that hold letters of the text, as `top_logprobs`.

    Raises NoEcho when the endpoint gives none.
    """
    before, text = parts(request)
    answer = document(content)
    choices = answer.get("choices") or [{}]
    first, last = len(before), len(before) + len(text)
    try:
        found = choices[0]["logprobs"]
        rows = list(
            zip(found["tokens"], found["token_logprobs"], found["text_offset"], strict=True)
        )
        echoed = str(choices[0]["text"]).startswith(before + text)
    except (KeyError, TypeError, ValueError):
        raise NoEcho(NO_ECHO) from None
    scored = [
        (str(token), finite(value))
        for token, value, start in rows
        if first < start + len(token) and start < last and value is not None
    ]
    if not scored or not echoed:
        raise NoEcho(NO_ECHO)
    return scores(text, scored, answer)


def read_forced(content: bytes, request: Request, _: str | None) -> ModelReply:
    """The log-probabilities of the forced tokens. Raises BadReply when the text differs."""
    text, count = parts(request)[1], request.max_tokens - 1
    answer = document(content)
    choice = (answer.get("choices") or [{}])[0]
    tokens = tokens_of(choice)[:count]
    if choice.get("text") != text or len(tokens) < count:
        raise BadReply("it wrote another text than the one it was given", usage_of(answer))
    return scores(text, [(str(e["token"]), finite(e["logprob"])) for e in tokens], answer)


def scores(text: str, scored: list[tuple[str, float]], answer: Mapping[str, Any]) -> ModelReply:
    usage = usage_of(answer)
    return ModelReply(
        text=text,
        finish_reason="scored",
        top_logprobs=scored,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_tokens=usage.cached,
    )


def finite(value: Any) -> float:
    return max(float(value), LEAST) if not math.isnan(float(value)) else LEAST


REASONED = Route("/chat/completions", Request.body, read_choice)
ECHO = Route("/completions", echo_body, read_echo)
FORCED = Route("/completions", forced_body, read_forced)
TOKENS = Route("/../tokenize", tokens_body, read_tokens)
"""Its path is beside /v1 on the server."""
