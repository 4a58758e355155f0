"""The critic: which of two paraphrases is better.

Two kinds. `learned` is the reward model of `quip.reward`: no call, no position. `mcp` asks a large
model in both orders. Multiple choice (the paper's MCP): the text and the choices 1 and 2 are shown,
and the critic's probability for "1" against "2" is read from its token log-probabilities, or
estimated from sampled answers where the endpoint gives none. Two identical texts are a tie and are
not asked about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from quip import oracle, prompts
from quip.oracle import Oracle
from quip.params import Section
from quip.preference import sigmoid
from quip.records import Answer, Critique, GoldPair, Split
from quip.replies import ModelReply, Request

TOP_LOGPROBS = 20
LEARNED = "learned"
"""The learned critic's name among the judges."""
NUMBER = re.compile(r"(?<![\w.,])[-\u2212]?\d+(?:[.,]\d+)*\b")


class CriticParams(Section):
    """Section `critic`, read by `audit`, `critique` and `control`."""

    kind: Literal["mcp", "learned"]
    endpoint: str
    prompt: str
    samples: int


def named(critic: CriticParams) -> str:
    """What this critic is called as a judge: `learned`, or its endpoint."""
    return LEARNED if critic.kind == LEARNED else critic.endpoint


class Comparison(NamedTuple):
    """Two texts to compare for one literal, and who wrote them."""

    input: str
    split: Split | str
    literal: str
    name_a: str
    name_b: str
    a: str
    b: str


class Answers(NamedTuple):
    """Critiques in the order of the pairs asked about, and what asking cost (a ledger)."""

    rows: list[Critique]
    spent: dict[str, float | str]


def ask(
    params: CriticParams, reward: str | Path, pairs: Sequence[Comparison], what: str
) -> Answers:
    """The critic of params.yaml on `pairs`; `reward` is the folder of the learned one."""
    if params.kind == "learned":
        return Answers(learned(reward, pairs), {})
    with oracle.connect(params.endpoint) as model:
        return Answers(compare(model, params.prompt, params.samples, pairs, what), model.spent())


def learned(folder: str | Path, pairs: Sequence[Comparison]) -> list[Critique]:
    """The learned critic's word on every pair: p_first = sigmoid(r(first) - r(second)), so that
    the two orders are each other's complement."""
    from quip import reward

    texts = list(dict.fromkeys((p.literal, text) for p in pairs for text in (p.a, p.b)))
    value = dict(zip(texts, reward.rewards(reward.load(folder), texts), strict=True))
    rows = []
    for pair in pairs:
        gap = value[pair.literal, pair.a] - value[pair.literal, pair.b]
        source = "identical" if pair.a == pair.b else "learned"
        forward, backward = (Answer(p_first=sigmoid(x), source=source) for x in (gap, -gap))
        rows.append(Critique(**pair._asdict(), judge=LEARNED, forward=forward, backward=backward))
    return rows


def compare(
    oracle: Oracle, prompt: str, samples: int, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """Ask about every pair in both orders; answers in the order of `pairs`.

    The two orders of a pair follow each other, so that an engine with a prompt cache reads the
    literal once.
    """
    messages = prompts.read(prompt)
    logprobs = oracle.settings.logprobs
    asked = [pair for pair in pairs if pair.a != pair.b]
    each = 1 if logprobs else samples
    requests = (
        request
        for pair in asked
        for first, second in ((pair.a, pair.b), (pair.b, pair.a))
        for request in questions(messages, pair.literal, first, second, samples, logprobs)
    )
    replies = oracle.ask(requests, what, total=2 * each * len(asked))
    return [answered(pair, oracle.name, replies, each) for pair in pairs]


def questions(
    messages: prompts.Messages, literal: str, first: str, second: str, samples: int, logprobs: bool
) -> list[Request]:
    """The calls for one order: one that returns log-probabilities, or `samples` sampled ones."""
    filled = prompts.fill(messages, literal=literal, first=first, second=second)
    if logprobs:
        return [Request(filled, max_tokens=1, top_logprobs=TOP_LOGPROBS, cut_off=True)]
    return [
        Request(filled, temperature=1.0, max_tokens=8, seed=seed, cut_off=True)
        for seed in range(samples)
    ]


def answered(
    pair: Comparison, judge: str, replies: Iterator[ModelReply | None], each: int
) -> Critique:
    if pair.a == pair.b:
        forward = backward = Answer(p_first=0.5, source="identical")
    else:
        forward, backward = (read([next(replies) for _ in range(each)]) for _ in range(2))
    return Critique(**pair._asdict(), judge=judge, forward=forward, backward=backward)


def read(replies: Sequence[ModelReply | None]) -> Answer:
    """One order's answer: from log-probabilities if there are any, else from the choices named."""
    known = [reply for reply in replies if reply is not None]
    raw = " | ".join(reply.text for reply in known)[:200]
    if len(known) == 1 and known[0].top_logprobs:
        p = p_first_of_logprobs(known[0].top_logprobs)
        return Answer(p_first=p, source="unread" if p is None else "logprobs", raw=raw)
    p = p_first_of_choices([parse_choice(reply.text) for reply in known])
    return Answer(p_first=p, source="unread" if p is None else "samples", raw=raw)


def p_first_of_logprobs(top: Sequence[tuple[str, float]]) -> float | None:
    """P("1") / (P("1") + P("2")) over the alternatives at the answer's first token.

    A choice outside the list counts as likely as its last entry (an upper bound, so the
    preference is understated, never overstated). None when neither choice is in the list.
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
    named = set(NUMBER.findall(text))
    return named.pop() if named in ({"1"}, {"2"}) else None


def p_first_of_choices(choices: Sequence[str | None]) -> float | None:
    """The share of answers that name the first choice, with Laplace's rule: (k + 1) / (n + 2).

    Unreadable answers are left out; None when nothing could be read.
    """
    read_ones = [choice for choice in choices if choice is not None]
    if not read_ones:
        return None
    return (read_ones.count("1") + 1) / (len(read_ones) + 2)


def gold_comparisons(pairs: Sequence[GoldPair]) -> list[Comparison]:
    """Gold pairs as comparisons of `better` (a) with `worse` (b)."""
    return [
        Comparison(p.id, "gold", p.literal, "better", "worse", p.better, p.worse) for p in pairs
    ]
