"""The cloze critic: of two paraphrases the one that is likelier in a template, word for word.

The paper's alternative to multiple choice ("The funny paraphrase of I is P"): no choice is asked
for, so there is no position. The likelihood of a text is per token, so that it does not fall with
length: l(text) = mean of log P(token | template up to the text, tokens before it). Of two texts

    p(a) = sigmoid(l(a) - l(b)).

A fluent text is likely in any template. Calibrated, l is less the likelihood of the same text in a
template without question and input (`cloze_alone`): per token, the pointwise mutual information of
text and input (compare Holtzman et al. 2021, arXiv 2104.08315).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.debiasing import sigmoid
from quip.llm.connection import LLM
from quip.llm.requests import prompts
from quip.llm.requests.chat import ModelReply
from quip.llm.requests.protocols import ECHO, FORCED, TOKENS, NoEcho, scoring, tokenizing
from quip.runtime.errors import EndpointError

ALONE = "cloze_alone"
TEXT = "{text}"
ScoredText = tuple[str, str]
"""(the template up to the text, the text whose likelihood is asked)"""


def compare(
    llm: LLM, prompt: str, calibrated: bool, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """A critique of every pair, in their order; two calls a pair, four when `calibrated`."""
    asked = [pair for pair in pairs if pair.a != pair.b]
    texts = [(pair.literal, text) for pair in asked for text in (pair.a, pair.b)]
    scored = [prefix_and_text(prompt, literal, text) for literal, text in texts]
    alone = [prefix_and_text(ALONE, "", text) for _, text in scored] if calibrated else []
    value = likelihoods(llm, list(dict.fromkeys([*scored, *alone])), what)

    def score(literal: str, text: str) -> float | None:
        found = value[prefix_and_text(prompt, literal, text)]
        bare = value[prefix_and_text(ALONE, "", text)] if calibrated else 0.0
        return None if found is None or bare is None else found - bare

    return [critique(pair, llm.name, score) for pair in pairs]


def prefix_and_text(prompt: str, literal: str, text: str) -> ScoredText:
    """The template up to the text, filled in, and the text."""
    template = "\n".join(part for _, part in prompts.read(prompt))
    start = template.partition(TEXT)[0]
    return prompts.fill((("user", start),), literal=literal)[0][1], text


def likelihoods(
    llm: LLM, scored: Sequence[ScoredText], what: str
) -> dict[ScoredText, float | None]:
    """Mean log-probability of a text's tokens; None where the call failed for good.

    Raises EndpointError, with what would do, when the endpoint returns none of prompts.
    """
    forced = llm.settings.embedded
    cut = tokenize(llm, [text for _, text in scored], what) if forced else {}
    requests = [scoring(start, text, cut.get(text)) for start, text in scored]
    try:
        replies = list(llm.ask(requests, what, len(requests), FORCED if forced else ECHO))
    except NoEcho as error:
        raise EndpointError(f"endpoint '{llm.name}': {error}.") from None
    except EndpointError as error:
        hint = "" if forced else " (critic.kind 'cloze' asks /completions for `echo`)"
        raise EndpointError(f"{error}{hint}") from None
    return dict(zip(scored, (mean_logprob(reply) for reply in replies), strict=True))


def tokenize(llm: LLM, texts: Sequence[str], what: str) -> dict[str, list[int]]:
    """The embedded engine's tokens of each text."""
    texts = list(dict.fromkeys(texts))
    replies = llm.ask([tokenizing(text) for text in texts], what, len(texts), TOKENS)
    cut = zip(texts, replies, strict=True)
    return {text: [int(token) for token in reply.text.split()] for text, reply in cut if reply}


def mean_logprob(reply: ModelReply | None) -> float | None:
    if reply is None or not reply.top_logprobs:
        return None
    return sum(value for _, value in reply.top_logprobs) / len(reply.top_logprobs)


def critique(pair: Comparison, judge: str, score: Callable[[str, str], float | None]) -> Critique:
    """Both orders of a critic that sees one text at a time are each other's complement."""
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
