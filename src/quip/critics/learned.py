"""Learned critic: a reward model scores each text; no endpoint is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.core.records import Answer, Critique
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import LEARNED
from quip.critics.debiasing import sigmoid


def compare(folder: str | Path, pairs: Sequence[Comparison]) -> list[Critique]:
    """Critiques in the order of `pairs`: p_first = sigmoid(r(first) - r(second)), so that the
    answers in the two orders are complements. `folder` holds the reward model."""
    from quip.critics import reward_model

    texts = list(dict.fromkeys((p.literal, text) for p in pairs for text in (p.a, p.b)))
    value = dict(zip(texts, reward_model.rewards(reward_model.load(folder), texts), strict=True))
    rows = []
    for pair in pairs:
        gap = value[pair.literal, pair.a] - value[pair.literal, pair.b]
        source = "identical" if pair.a == pair.b else "learned"
        forward, backward = (Answer(p_first=sigmoid(x), source=source) for x in (gap, -gap))
        rows.append(Critique(**pair._asdict(), judge=LEARNED, forward=forward, backward=backward))
    return rows
