"""Chat request and its checked reply.

A request's fields and the checks of its reply determine a stage's results; the rest of `quip.llm`
only determines how fast and how often an endpoint is asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from pydantic import BaseModel


class Usage(NamedTuple):
    """Tokens of one call as the server counts them; all 0 when it reports none."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True)
class About:
    """What a call is about, whatever its words are: a recorded reply is found by it.

    Of a teacher: the literal and `n`, the number of paraphrases wanted. Of a comparison: the
    literal, the texts in the order shown, the question about them and the number of the sample.
    """

    literal: str
    n: int = 0
    first: str = ""
    second: str = ""
    question: str = "overall"
    sample: int = 0


@dataclass(frozen=True)
class Request:
    """One chat call: all that determines its reply except the model.

    `cut_off` accepts a reply that ends at `max_tokens` (a critic is asked for one token). It is not
    part of the key, since it changes the check of a reply and not the request. Nor is `about`,
    which is never sent.
    """

    messages: tuple[tuple[str, str], ...]
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    top_logprobs: int | None = None
    cut_off: bool = False
    about: About | None = None

    def key(self, model: str) -> str:
        value = [model, self.messages, self.temperature, self.top_p, self.max_tokens, self.seed]
        return sha256(json.dumps([*value, self.top_logprobs]).encode()).hexdigest()

    def body(self, model: str) -> dict[str, Any]:
        """The JSON document of an OpenAI-compatible chat endpoint."""
        logprobs = {"logprobs": True, "top_logprobs": self.top_logprobs}
        return {
            "model": model,
            "messages": [{"role": role, "content": text} for role, text in self.messages],
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            **(logprobs if self.top_logprobs else {}),
        }

    def letters(self) -> int:
        return sum(len(text) for _, text in self.messages)


class ModelReply(BaseModel):
    """A checked reply. `top_logprobs` are the alternatives at the first token, if requested."""

    text: str
    finish_reason: str
    top_logprobs: list[tuple[str, float]] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.cached_tokens, self.completion_tokens)


class BadReply(Exception):
    """An answer with status 200 and no usable reply. `usage` holds the tokens it cost."""

    def __init__(self, reason: str, usage: Usage = Usage()) -> None:  # noqa: B008
        super().__init__(reason)
        self.usage = usage


class Refused(BadReply):
    """The provider or the model refused this row explicitly; another try is useless."""


def read_reply(content: bytes, request: Request, model: str | None) -> ModelReply:
    """Check the body of an answer and return its reply.

    `model` is the name that the answer must bear (None: any). Raises BadReply with a reason that
    names the remedy.
    """
    answer = document(content)
    usage = usage_of(answer)
    if model and answer.get("model") and not same_model(model, str(answer["model"])):
        raise BadReply(
            f"it answers as '{str(answer['model'])[:80]}', not '{model}'; if that is the same, set "
            "`answers_as` to it",
            usage,
        )
    choice = first_choice(answer)
    finish = str(choice.get("finish_reason") or "unknown")
    if choice["message"].get("refusal") or finish == "content_filter":
        raise Refused(f"refused: {choice['message'].get('refusal') or finish}"[:200], usage)
    text = choice["message"].get("content")
    if not isinstance(text, str) or not text.strip():
        raise BadReply("the reply holds no text", usage)
    if finish == "length" and not request.cut_off:
        raise BadReply(f"the reply was cut off at max_tokens ({request.max_tokens})", usage)
    top = first_token_logprobs(choice)
    if request.top_logprobs and top is None:
        raise BadReply("no log-probabilities; set `logprobs: false` if it never gives any", usage)
    return ModelReply(
        text=text,
        finish_reason=finish,
        top_logprobs=top,
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_tokens=usage.cached,
    )


def document(content: bytes) -> dict[str, Any]:
    """The JSON object of a body, whatever its content type. Raises BadReply."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        kind = "an HTML page" if content.lstrip()[:1] == b"<" else "cut-off JSON"
        raise BadReply(f"{kind} in place of a reply") from None
    if not isinstance(answer, dict):
        raise BadReply(f"a {type(answer).__name__} in place of a reply")
    if answer.get("error"):
        raise BadReply(f"an error in place of a reply: {str(answer['error'])[:200]}")
    return answer


def first_choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The choice with the lowest index. Raises BadReply when there is none."""
    choices = answer.get("choices")
    whole = [
        choice
        for choice in (choices if isinstance(choices, list) else [])
        if isinstance(choice, dict) and isinstance(choice.get("message"), dict)
    ]
    if not whole:
        raise BadReply("no choices in the reply", usage_of(answer))
    return min(whole, key=lambda choice: count(choice.get("index")))


def first_token_logprobs(choice: Mapping[str, Any]) -> list[tuple[str, float]] | None:
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        return [(str(entry["token"]), float(entry["logprob"])) for entry in top] or None
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def usage_of(answer: Mapping[str, Any]) -> Usage:
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    return Usage(prompt, min(count(cached), prompt), completion)


def count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def same_model(asked: str, given: str) -> bool:
    """Whether one name contains the other: providers add dates, folders and file endings."""
    a, b = (name.lower().rsplit("/", 1)[-1].removesuffix(".gguf") for name in (asked, given))
    return a in b or b in a
