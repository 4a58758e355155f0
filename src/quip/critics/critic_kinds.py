"""Critic kinds: how each kind of critic is asked which of two paraphrases is better.

There are five. The first three answer one of three questions (overall, humor, content):

mcp         multiple choice (the paper's MCP): the text and the choices 1 and 2 are shown in both
            orders; the probability for "1" against "2" is read from the log-probabilities of the
            answer's first token, or estimated from sampled answers where there are none
mcp_reason  the same with a short reason first, as in the paper's prompt; the probability is read at
            the token of the final choice
cloze       the likelihood of each text in a template (`quip.critics.cloze`); no position bias
panel       several critics combined by logistic regression (`quip.critics.panel`); no position bias
learned     the reward model of `quip.critics.reward_model`; no calls and no position bias

Two identical texts are a tie and cost no call.

A new kind is a module of this package and a branch of `ask` here (of `prompted.compare_with` if it
asks an endpoint); its name and settings go into `quip.critics.critic_settings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.critics import learned, panel, prompted
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_settings import LEARNED, PANEL, CriticParams


def ask(
    params: CriticParams, reward: str | Path, pairs: Sequence[Comparison], what: str
) -> Answers:
    """Ask the critic `params` about `pairs`; `reward` is the folder of the learned critic."""
    if params.kind == LEARNED:
        return Answers(learned.compare(reward, pairs), {})
    if params.kind == PANEL:
        return panel.ask(params, pairs, what)
    return prompted.ask(params, pairs, what)
