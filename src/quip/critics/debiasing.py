"""The arithmetic of preference: what two answers of a critic, one in each order, say together.

Pure functions over `Answer`s. Probabilities are clipped to [EPSILON, 1 - EPSILON] before log-odds,
so that a critic that is certain does not become infinitely certain.

Three biases, three remedies, all in `calibrated_preference`. Position: by `method`, below.
Confidence: a small model's log-odds say which text it prefers, but not how surely; `scale` turns
them into probabilities. Length: a critic that favours the longer text loses `per_word` for every
word more. The numbers are fitted on the tuning half of the gold pairs (`quip critics`).

With p1 the probability that the critic gives the first text when a is shown first, p2 when b is:

log_odds      sigmoid((logit p1 - logit p2) / 2): a constant lean in log-odds cancels (default)
probability   (p1 + 1 - p2) / 2: the paper's averaging; a lean counts less where it is sure
content_free  one order only, chosen by a digest of the texts: logit p less logit `content_free`,
              the probability that the critic gives the first of two texts that say nothing (Zhao
              et al. 2021, "Calibrate Before Use")
none          one order only, as it is
"""

from __future__ import annotations

import math
from hashlib import sha256
from typing import Literal

from pydantic import Field, model_validator

from quip.core.params import Section
from quip.core.records import Answer, Critique

EPSILON = 1e-6
ROUNDING = 1e-9
"""0.55 and 0.45 are equally far from one half, but not as floats."""


Method = Literal["log_odds", "probability", "content_free", "none"]


class Debias(Section):
    """Section `debias`, the same wherever a critique becomes a preference."""

    method: Method
    scale: float
    per_word: float
    content_free: float | None = Field(default=None, gt=0, lt=1)
    """The critic's probability for the first of two texts that say nothing; None: not measured."""

    @model_validator(mode="after")
    def measured(self) -> Debias:
        if self.method == "content_free" and self.content_free is None:
            raise ValueError(
                "method content_free needs the number content_free, which `quip critics` measures"
            )
        return self


def logit(p: float) -> float:
    """log(p / (1 - p)), with p clipped to [EPSILON, 1 - EPSILON]."""
    p = min(max(p, EPSILON), 1 - EPSILON)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def preference(forward: Answer, backward: Answer, method: Method = "log_odds") -> float | None:
    """The critic's preference for `a` over `b`, in [0, 1], out of both orders.

    `forward` showed a first, `backward` showed b first. With "log_odds" it is
    sigmoid((logit p_forward - logit p_backward) / 2), which a constant shift towards one position
    leaves unchanged; with "probability" it is (p_forward + 1 - p_backward) / 2, the paper's
    section on position bias. None when either order could not be read. For the methods that look
    at one order, see `debiased_preference`.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    if method == "probability":
        return 0.5 + (forward.p_first - backward.p_first) / 2
    return sigmoid((logit(forward.p_first) - logit(backward.p_first)) / 2)


def debiased_preference(critique: Critique, debias: Debias) -> float | None:
    """The preference for text `a`, freed of position bias as `debias.method` says; None when an
    order could not be read. A learned critic has no position: both orders say the same."""
    forward, backward = critique.forward, critique.backward
    both = debias.method in ("log_odds", "probability")
    if both or forward.source in ("learned", "identical"):
        return preference(forward, backward, debias.method)
    if forward.p_first is None or backward.p_first is None:
        return None
    prior = debias.content_free if debias.method == "content_free" else None
    lean = logit(prior) if prior is not None else 0.0
    if a_is_shown(critique):
        return sigmoid(logit(forward.p_first) - lean)
    return sigmoid(lean - logit(backward.p_first))


def a_is_shown(critique: Critique) -> bool:
    """Whether a method that looks at one order shows `a` first: chance, but the same in every run,
    and the other way round when the texts are swapped."""
    first, second = (
        sha256(f"{critique.literal}\n{text}".encode()).digest() for text in (critique.a, critique.b)
    )
    return first <= second


def calibrated_preference(critique: Critique, debias: Debias) -> float | None:
    """The calibrated preference for text `a` of one comparison, in [0, 1].

    sigmoid(scale * logit(p) + per_word * (words(a) - words(b))), where p is `debiased_preference`:
    a logistic regression without intercept, so that swapping the texts gives exactly one minus it.
    A critic that answers the same whichever text comes first prefers neither: one half, whatever
    the lengths. A learned critic's p is a fitted probability already and stays as it is. None when
    either order could not be read.
    """
    p = debiased_preference(critique, debias)
    if p is None or p == 0.5 or critique.forward.source == "learned":
        return p
    longer = len(critique.a.split()) - len(critique.b.split())
    return sigmoid(debias.scale * logit(p) + debias.per_word * longer)


def order_flips(forward: Answer, backward: Answer) -> bool | None:
    """Whether the named text changes with the order (the paper's PB counts these).

    A critic that puts exactly one half on both positions names nothing and does not flip.
    None when either order could not be read.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    return (forward.p_first - 0.5) * (backward.p_first - 0.5) > 0
