"""Debiasing: one calibrated preference from a critic's answers in both orders.

Pure functions over `Answer`s. Probabilities are clipped to [EPSILON, 1 - EPSILON] before log-odds,
so that log-odds stay finite.

`calibrated_preference` corrects three biases. Position: by `method`, below. Confidence: a small
model's log-odds show which text it prefers, but are no calibrated probability; `scale` corrects
them. Length: `per_word`, negative for a critic that favours longer texts, is added per extra word.
The numbers are fitted on the tuning half of the gold pairs (`quip critics`).

p1 is the critic's probability for the first text when a is shown first, p2 when b is shown first:

log_odds      sigmoid((logit p1 - logit p2) / 2): a constant position bias in log-odds cancels
              (default)
probability   (p1 + 1 - p2) / 2: the paper's averaging; the bias matters less where the critic is
              confident
content_free  one order only, chosen by a digest of the texts: logit p minus logit `content_free`,
              the critic's probability for the first of two content-free texts (Zhao et al. 2021,
              "Calibrate Before Use")
none          one order only, uncorrected
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
"""Tolerance for equal distances: 0.55 and 0.45 are not equally far from one half as floats."""


Method = Literal["log_odds", "probability", "content_free", "none"]


class Debias(Section):
    """Section `debias`, used wherever a critique becomes a preference."""

    method: Method
    scale: float
    per_word: float
    content_free: float | None = Field(default=None, gt=0, lt=1)
    """The critic's probability for the first of two content-free texts; None: not measured."""

    @model_validator(mode="after")
    def require_content_free(self) -> Debias:
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
    """The critic's preference for `a` over `b`, in [0, 1], from both orders.

    `forward` showed a first, `backward` showed b first. With "log_odds" it is
    sigmoid((logit p_forward - logit p_backward) / 2), which does not change with a constant shift
    towards one position; with "probability" it is (p_forward + 1 - p_backward) / 2, the paper's
    section on position bias. None when either order could not be read. For the methods that look
    at one order, see `debiased_preference`.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    if method == "probability":
        return 0.5 + (forward.p_first - backward.p_first) / 2
    return sigmoid((logit(forward.p_first) - logit(backward.p_first)) / 2)


def debiased_preference(critique: Critique, debias: Debias) -> float | None:
    """The preference for text `a`, in [0, 1], with position bias corrected by `debias.method`; None
    when an order could not be read. A learned critic answers the same in both orders."""
    forward, backward = critique.forward, critique.backward
    both = debias.method in ("log_odds", "probability")
    if both or forward.source in ("learned", "identical"):
        return preference(forward, backward, debias.method)
    if forward.p_first is None or backward.p_first is None:
        return None
    prior = debias.content_free if debias.method == "content_free" else None
    bias = logit(prior) if prior is not None else 0.0
    if a_is_shown(critique):
        return sigmoid(logit(forward.p_first) - bias)
    return sigmoid(bias - logit(backward.p_first))


def a_is_shown(critique: Critique) -> bool:
    """Whether a method that uses one order shows `a` first: pseudo-random by a digest of the texts,
    the same in every run, and reversed when the texts are swapped."""
    first, second = (
        sha256(f"{critique.literal}\n{text}".encode()).digest() for text in (critique.a, critique.b)
    )
    return first <= second


def calibrated_preference(critique: Critique, debias: Debias) -> float | None:
    """The calibrated preference for text `a` of one comparison, in [0, 1].

    sigmoid(scale * logit(p) + per_word * (words(a) - words(b))), where p is `debiased_preference`:
    a logistic regression without intercept, so that swapping the texts gives exactly one minus it.
    A critic that answers the same in both orders prefers neither text: one half, whatever the
    lengths. The p of a learned critic is already a fitted probability and is not changed. None when
    either order could not be read.
    """
    p = debiased_preference(critique, debias)
    if p is None or p == 0.5 or critique.forward.source == "learned":
        return p
    longer = len(critique.a.split()) - len(critique.b.split())
    return sigmoid(debias.scale * logit(p) + debias.per_word * longer)


def order_flips(forward: Answer, backward: Answer) -> bool | None:
    """Whether the critic's choice changes with the order (the paper's PB counts these).

    A critic that answers exactly one half makes no choice and does not flip.
    None when either order could not be read.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    return (forward.p_first - 0.5) * (backward.p_first - 0.5) > 0
