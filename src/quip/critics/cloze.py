"""Cloze critic: prefers the paraphrase with the higher likelihood in a template.

The paper's alternative to multiple choice ("The funny paraphrase of I is P"). The model makes no
choice, so there is no position bias. The likelihood of a text is a mean over its tokens, so that it
does not fall with length: l(text) = mean of log P(token | template up to the text, tokens before
it). For two texts

    p(a) = sigmoid(l(a) - l(b)).

A fluent text is likely in any template. The calibrated critic therefore subtracts the likelihood of
the same text in a template without question and input (`cloze_alone`), which gives, per token, the
pointwise mutual information of text and input (compare Holtzman et al. 2021, arXiv 2104.08315).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.debiasing import sigmoid
from quip.llm.connection import LLM
from quip.llm.requests import prompts
from quip.llm.requests.chat import ModelReply
from quip.llm.requests.protocols import (
    ECHO,
    FORCED,
    TOKENS,
    NoEcho,
    scoring_request,
    tokenize_request,
)
from quip.runtime.errors import EndpointError

NO_QUESTION = "cloze_alone"
TEXT = "{text}"
ScoredText = tuple[str, str]
"""(the filled template up to the text, the text to score)"""


def compare(
    llm: LLM, prompt: str, calibrated: bool, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """Critiques in the order of `pairs`; two calls per pair, four when `calibrated`."""
    asked = [pair for pair in pairs if pair.a != pair.b]
    texts = [(pair.literal, text) for pair in asked for text in (pair.a, pair.b)]
    scored = [prefix_and_text(prompt, literal, text) for literal, text in texts]
    unconditional = (
        [prefix_and_text(NO_QUESTION, "", text) for _, text in scored] if calibrated else []
    )
    value = likelihoods(llm, list(dict.fromkeys([*scored, *unconditional])), what)

    def score(literal: str, text: str) -> float | None:
        found = value[prefix_and_text(prompt, literal, text)]
        without_question = value[prefix_and_text(NO_QUESTION, "", text)] if calibrated else 0.0
        return None if found is None or without_question is None else found - without_question

    return [critique(pair, llm.name, score) for pair in pairs]


def prefix_and_text(prompt: str, literal: str, text: str) -> ScoredText:
    """The filled template up to the text, and the text."""
    template = "\n".join(part for _, part in prompts.read(prompt))
    start = template.partition(TEXT)[0]
    return prompts.fill((("user", start),), literal=literal)[0][1], text


def likelihoods(
    llm: LLM, scored: Sequence[ScoredText], what: str
) -> dict[ScoredText, float | None]:
    """Mean log-probability of the tokens of each text; None where the call failed for good.

    Raises EndpointError, with the remedy, when the endpoint returns no prompt log-probabilities.
    """
    forced = llm.settings.embedded
    cut = tokenize(llm, [text for _, text in scored], what) if forced else {}
    requests = [scoring_request(start, text, cut.get(text)) for start, text in scored]
    try:
        replies = list(llm.ask(requests, what, len(requests), FORCED if forced else ECHO))
    except NoEcho as error:
        raise EndpointError(f"endpoint '{llm.name}': {error}.") from None
    except EndpointError as error:
        hint = "" if forced else " (critic.kind 'cloze' asks /completions for `echo`)"
        raise EndpointError(f"{error}{hint}") from None
    return dict(zip(scored, (mean_logprob(reply) for reply in replies), strict=True))


def tokenize(llm: LLM, texts: Sequence[str], what: str) -> dict[str, list[int]]:
    """{text: its tokens by the embedded engine}."""
    texts = list(dict.fromkeys(texts))
    replies = llm.ask([tokenize_request(text) for text in texts], what, len(texts), TOKENS)
    cut = zip(texts, replies, strict=True)
    return {text: [int(token) for token in reply.text.split()] for text, reply in cut if reply}


def mean_logprob(reply: ModelReply | None) -> float | None:
    """Mean log-probability of the tokens of a reply; None without any."""
    if reply is None or not reply.top_logprobs:
        return None
    return sum(value for _, value in reply.top_logprobs) / len(reply.top_logprobs)


def critique(pair: Comparison, judge: str, score: Callable[[str, str], float | None]) -> Critique:
    """The critique from the scores of both texts. The critic sees one text at a time, so the
    answers in the two orders are complements."""
    if pair.a == pair.b:
        forward = backward = Answer(p_first=0.5, source="identical")
    else:
        a, b = score(pair.literal, pair.a), score(pair.literal, pair.b)
        if a is None or b is None:
            forward = backward = Answer(p_first=None, source="unread")
        else:
            raw = f"{a:.4f} {b:.4f}"
            forward = Answer(p_first=sigmoid(a - b), source="logprobs", raw=raw)
            backward = Answer(p_first=sigmoid(b - a), source="logprobs", raw=raw)
    return Critique(**pair._asdict(), judge=judge, forward=forward, backward=backward)
