"""The arithmetic of preference: what two answers of a critic, one in each order, say together.

Pure functions over `Answer`s. Probabilities are clipped to [EPSILON, 1 - EPSILON] before log-odds,
so that a critic that is certain does not become infinitely certain.
"""

from __future__ import annotations

import math
from typing import Literal

from quip.records import Answer, Critique, Outcome

EPSILON = 1e-6
Debias = Literal["log_odds", "probability"]


def logit(p: float) -> float:
    """log(p / (1 - p)), with p clipped to [EPSILON, 1 - EPSILON]."""
    p = min(max(p, EPSILON), 1 - EPSILON)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def preference(forward: Answer, backward: Answer, debias: Debias = "log_odds") -> float | None:
    """The critic's preference for `a` over `b`, in [0, 1], freed of its position bias.

    `forward` showed a first, `backward` showed b first. With "log_odds" it is
    sigmoid((logit p_forward - logit p_backward) / 2), which a constant shift towards one position
    leaves unchanged; with "probability" it is (p_forward + 1 - p_backward) / 2, the paper's
    section on position bias. None when either order could not be read.
    """
    if forward.p_first is None or backward.p_first is None:
        return None
    if debias == "probability":
        return (forward.p_first + 1 - backward.p_first) / 2
    return sigmoid((logit(forward.p_first) - logit(backward.p_first)) / 2)


def of(critique: Critique, debias: Debias = "log_odds") -> float | None:
    """`preference` of one comparison: of its text `a` over its text `b`."""
    return preference(critique.forward, critique.backward, debias)


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
    if abs(value - 0.5) <= tie_margin:
        return "tie"
    return "win" if value > 0.5 else "loss"
