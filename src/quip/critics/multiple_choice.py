"""Multiple-choice prompting (MCP): asks which of two texts is better, 1 or 2."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import CriticParams, critic_name, prompt_name
from quip.llm import connection
from quip.llm.connection import LLM
from quip.llm.requests import prompts
from quip.llm.requests.chat import About, ModelReply, Request
from quip.llm.requests.protocols import REASONED, final_choice
from quip.runtime.errors import DataError

TOP_LOGPROBS = 20
REASON_TOKENS = 80
"""Room for a reason of 20 words and a choice."""


CHOICE_ONLY = "So which choice is better? Answer with its number alone: 1 or 2."
NUMBER = re.compile(r"(?<![\w.,])[-\u2212]?\d+(?:[.,]\d+)*\b")
CONTENT_FREE_TEXTS = ("N/A", "[MASK]", "")
"""Texts without content (Zhao et al. 2021), which measure a critic's position bias."""


def compare(
    llm: LLM,
    prompt: str,
    samples: int,
    pairs: Sequence[Comparison],
    what: str,
    reason: bool = False,
    question: str = "overall",
) -> list[Critique]:
    """Ask about every pair in both orders; critiques in the order of `pairs`. With `reason` an
    answer gives a short reason before its choice. `question` is what the prompt asks, in a word.

    The two orders of a pair are asked one after the other, so that an engine with a prompt cache
    reads the literal once.
    """
    messages = prompts.read(prompt)
    logprobs = llm.settings.logprobs
    asked = [pair for pair in pairs if pair.a != pair.b]
    each = 1 if logprobs else samples
    requests = (
        request
        for pair in asked
        for first, second in ((pair.a, pair.b), (pair.b, pair.a))
        for request in order_requests(
            messages,
            About(pair.literal, first=first, second=second, question=question),
            samples,
            logprobs,
            reason,
        )
    )
    total = 2 * each * len(asked)
    replies = ask_with_reasons(llm, requests, what) if reason else llm.ask(requests, what, total)
    return [read_critique(pair, llm.name, replies, each, reason) for pair in pairs]


def ask_with_reasons(
    llm: LLM, requests: Iterable[Request], what: str
) -> Iterator[ModelReply | None]:
    """Replies with a reason. A reply without a final choice (frequent with small models: cut off,
    or only a reason) is followed once by a request for the choice alone, after its reason."""
    asked = list(requests)
    replies = list(llm.ask(asked, what, len(asked), REASONED))
    choice_requests = {
        i: Request(
            (*request.messages, ("assistant", reply.text.strip()), ("user", CHOICE_ONLY)),
            max_tokens=1 if request.top_logprobs else 8,
            temperature=request.temperature,
            seed=request.seed,
            top_logprobs=request.top_logprobs,
            cut_off=True,
            about=about_choice(request.about),
        )
        for i, (request, reply) in enumerate(zip(asked, replies, strict=True))
        if reply is not None and final_choice(reply.text) is None
    }
    choices = llm.ask(choice_requests.values(), f"{what}, the choice alone", len(choice_requests))
    for i, choice in zip(choice_requests, choices, strict=True):
        reply = replies[i]
        if choice is not None and reply is not None:
            replies[i] = choice.model_copy(update={"text": f"{reply.text}\n{choice.text}"})
    return iter(replies)


def about_choice(about: About | None) -> About | None:
    """What the call for the choice alone is about, after a reason about `about`."""
    return about and replace(about, question=f"{about.question}, the choice alone")


def order_requests(
    messages: prompts.Messages,
    about: About,
    samples: int,
    logprobs: bool,
    reason: bool = False,
) -> list[Request]:
    """The requests for one order: one with log-probabilities, or `samples` sampled ones."""
    filled = prompts.fill(messages, literal=about.literal, first=about.first, second=about.second)
    ask = partial(Request, filled, cut_off=True)
    if logprobs:
        most = REASON_TOKENS if reason else 1
        return [ask(max_tokens=most, top_logprobs=TOP_LOGPROBS, about=about)]
    sampled = partial(ask, temperature=1.0, max_tokens=REASON_TOKENS if reason else 8)
    return [sampled(seed=seed, about=replace(about, sample=seed)) for seed in range(samples)]


def measure_content_free(params: CriticParams) -> float:
    """The critic's probability for the first of two content-free texts, the mean over
    CONTENT_FREE_TEXTS (Zhao et al. 2021); one half for a critic that sees no positions.

    Raises DataError when no answer could be read.
    """
    if params.kind not in ("mcp", "mcp_reason"):
        return 0.5
    messages, reason = prompts.read(prompt_name(params)), params.kind == "mcp_reason"
    with connection.connect(params.endpoint) as llm:
        logprobs = llm.settings.logprobs
        each = 1 if logprobs else params.samples
        asked = [
            request
            for text in CONTENT_FREE_TEXTS
            for request in order_requests(
                messages,
                About(text, first=text, second=text, question=params.question),
                params.samples,
                logprobs,
                reason,
            )
        ]
        what = f"{critic_name(params)} on empty texts"
        replies = ask_with_reasons(llm, asked, what) if reason else llm.ask(asked, what, len(asked))
        answers = [
            read_answer([next(replies) for _ in range(each)], reason) for _ in CONTENT_FREE_TEXTS
        ]
    read_ones = [answer.p_first for answer in answers if answer.p_first is not None]
    if not read_ones:
        raise DataError(f"{critic_name(params)}: no answer on empty texts could be read.")
    return sum(read_ones) / len(read_ones)


def read_critique(
    pair: Comparison,
    judge: str,
    replies: Iterator[ModelReply | None],
    each: int,
    reason: bool = False,
) -> Critique:
    """The critique of a pair from its next `2 * each` replies; two equal texts use none."""
    if pair.a == pair.b:
        forward = backward = Answer(p_first=0.5, source="identical")
    else:
        orders = ([next(replies) for _ in range(each)] for _ in range(2))
        forward, backward = (read_answer(order, reason) for order in orders)
    return Critique(**pair._asdict(), judge=judge, forward=forward, backward=backward)


def read_answer(replies: Sequence[ModelReply | None], reason: bool = False) -> Answer:
    """The answer for one order: from log-probabilities if there are any, else from the named
    choices. With `reason` only the final choice of a reply counts."""
    received = [reply for reply in replies if reply is not None]
    raw = " | ".join(reply.text for reply in received)[:200]
    if len(received) == 1 and received[0].top_logprobs:
        p = p_first_of_logprobs(received[0].top_logprobs)
        return Answer(p_first=p, source="unread" if p is None else "logprobs", raw=raw)
    choice = final_choice if reason else parse_choice
    p = p_first_of_choices([choice(reply.text) for reply in received])
    return Answer(p_first=p, source="unread" if p is None else "samples", raw=raw)


def p_first_of_logprobs(top: Sequence[tuple[str, float]]) -> float | None:
    """P("1") / (P("1") + P("2")) over the alternatives at the answer's first token.

    A choice outside the list gets the probability of the last entry, an upper bound, so that the
    preference is never overstated. None when neither choice is in the list.
    """
    mass = {"1": 0.0, "2": 0.0}
    for token, logprob in top:
        if token.strip() in mass:
            mass[token.strip()] += math.exp(logprob)
    if not any(mass.values()):
        return None
    floor = math.exp(min(logprob for _, logprob in top))
    one, two = mass["1"] or floor, mass["2"] or floor
    return one / (one + two)


def parse_choice(text: str) -> str | None:
    """The choice an answer names: "1" or "2"; None when it names none, both or another number."""
    numbers = set(NUMBER.findall(text))
    return numbers.pop() if numbers in ({"1"}, {"2"}) else None


def p_first_of_choices(choices: Sequence[str | None]) -> float | None:
    """The share of answers that name the first choice, by Laplace's rule: (k + 1) / (n + 2).

    Unreadable answers are left out; None when no answer could be read.
    """
    read_ones = [choice for choice in choices if choice is not None]
    if not read_ones:
        return None
    return (read_ones.count("1") + 1) / (len(read_ones) + 2)
