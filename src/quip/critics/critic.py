"""The critic: which of two paraphrases is better.

Five kinds, each asked about one of three questions (overall, humor, content) but the last two:

mcp         multiple choice (the paper's MCP): the text and the choices 1 and 2 are shown in both
            orders; the probability for "1" against "2" is read from the log-probabilities of the
            answer's first token, or estimated from sampled answers where there are none
mcp_reason  the same with a short reason first, as in the paper's prompt; the probability is read at
            the token of the final choice
cloze       no choice: how likely each text is in a template (`quip.critics.cloze`); no position
panel       several of these, combined by a logistic regression (`quip.critics.panel`); no position
learned     the reward model of `quip.critics.reward_model`: no call, no position

Two identical texts are a tie and are not asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.critics import learned, panel, prompted
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_kinds import LEARNED, PANEL, CriticParams


def ask(
    params: CriticParams, reward: str | Path, pairs: Sequence[Comparison], what: str
) -> Answers:
    """The critic `params` on `pairs`; `reward` is the folder of the learned one."""
    if params.kind == LEARNED:
        return Answers(learned.critiques(reward, pairs), {})
    if params.kind == PANEL:
        return panel.ask(params, pairs, what)
    return prompted.ask(params, pairs, what)
