"""The arithmetic of preference: what two answers of a critic, one in each order, say together.

Pure functions over `Answer`s. Probabilities are clipped to [EPSILON, 1 - EPSILON] before log-odds,
so that a critic that is certain does not become infinitely certain.

Three biases, three remedies, all in `of`. Position: the two orders are averaged. Confidence: a
small model's log-odds say which text it prefers, but not how surely; `scale` turns them into
probabilities. Length: a critic that favours the longer text loses `per_word` for every word more.
The two numbers are fitted on the tuning half of the gold pairs (`quip critics`).
"""

from __future__ import annotations

import math
from typing import Literal

from quip.params import Section
from quip.records import Answer, Critique, Outcome

EPSILON = 1e-6
ROUNDING = 1e-9
"""0.55 and 0.45 are equally far from one half, but not as floats."""
Method = Literal["log_odds", "probability"]


class Debias(Section):
    """Section `debias`, the same wherever a critique becomes a preference."""

    method: Method
    scale: float
    per_word: float


def logit(p: float) -> float:
    """log(p / (1 - p)), with p clipped to [EPSILON, 1 - EPSILON]."""
    p = min(max(p, EPSILON), 1 - EPSILON)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def preference(forward: Answer, backward: Answer, method: Method = "log_odds") -> float | None:
    """The critic's preference for `a` over `b`, in [0, 1], freed of its position bias.

    `forward` showed a first, `backward` showed b first. With "log_odds" it is
    sigmoid((logit p_forward - logit p_backward) / 2), which a constant shift towards one position
    leaves unchanged; with "probability" it is (p_forward + 1 - p_backward) / 2, the paper's
    section on position bias. None when either order could not be read.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    if method == "probability":
        return 0.5 + (forward.p_first - backward.p_first) / 2
    return sigmoid((logit(forward.p_first) - logit(backward.p_first)) / 2)


def of(critique: Critique, debias: Debias) -> float | None:
    """The calibrated preference for text `a` of one comparison, in [0, 1].

    sigmoid(scale * logit(p) + per_word * (words(a) - words(b))), where p is `preference` of the
    two orders: a logistic regression without intercept, so that swapping the texts gives exactly
    one minus it. A critic that answers the same whichever text comes first prefers neither: one
    half, whatever the lengths. A learned critic's p is a fitted probability already and stays as it
    is. None when either order could not be read.
    """
    p = preference(critique.forward, critique.backward, debias.method)
    if p is None or p == 0.5 or critique.forward.source == "learned":
        return p
    longer = len(critique.a.split()) - len(critique.b.split())
    return sigmoid(debias.scale * logit(p) + debias.per_word * longer)


def flipped(forward: Answer, backward: Answer) -> bool | None:
    """Whether the named text changes with the order (the paper's PB counts these).

    A critic that puts exactly one half on both positions names nothing and does not flip.
    None when either order could not be read.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    return (forward.p_first - 0.5) * (backward.p_first - 0.5) > 0


def outcome(value: float, tie_margin: float) -> Outcome:
    """win, tie or loss of `a`: a tie when the preference is within `tie_margin` of one half."""
    if abs(value - 0.5) <= tie_margin + ROUNDING:
        return "tie"
    return "win" if value > 0.5 else "loss"
