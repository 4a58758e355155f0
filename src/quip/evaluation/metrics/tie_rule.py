"""The tie rule: when a comparison is a win, a tie or a loss. Pure.

`outcome` decides from the debiased preference and the margin (params `evaluate.tie_margin`);
`both_orders` from the judge's raw answers, as a diagnostic.
"""

from __future__ import annotations

from quip.core.records import Critique, Outcome
from quip.critics.debiasing import ROUNDING


def outcome(value: float, tie_margin: float) -> Outcome:
    """Win, tie or loss of `a`: a tie when the preference is within `tie_margin` of one half."""
    if abs(value - 0.5) <= tie_margin + ROUNDING:
        return "tie"
    return "win" if value > 0.5 else "loss"


def both_orders(critique: Critique) -> Outcome:
    """The conservative rule of MT-Bench (Zheng et al. 2023, arXiv 2306.05685, 3.4), without
    debiasing: a win when the judge's raw answers name a in both orders, a loss when both name b,
    else a tie. A judge that only follows position ties everything."""
    forward, backward = critique.forward.p_first, critique.backward.p_first
    if forward is None or backward is None:
        return "tie"
    if forward > 0.5 > backward:
        return "win"
    return "loss" if forward < 0.5 < backward else "tie"
