"""Asking every judge of params.yaml about the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip import oracle
from quip.critic import Comparison, compare, learned
from quip.errors import DataError
from quip.params import Section
from quip.records import Critique, Split


class JudgeParams(Section):
    """Section `judge`, read by `judge`, `duel` and `control`."""

    endpoints: list[str]
    learned: bool
    """Whether the learned critic judges too, beside the endpoints."""
    prompt: str
    samples: int
    splits: list[Split]
    control_inputs: int
    """Inputs for the A/A control and the copy baseline."""


def verdicts(
    params: JudgeParams, reward: str | Path, pairs: Sequence[Comparison], what: str
) -> list[Critique]:
    """The critiques of all judges, judge by judge, in the order of `pairs`; `reward` is the folder
    of the learned critic."""
    if not pairs:
        raise DataError(f"{what}: there is nothing to compare (no input has a teacher reference).")
    rows = []
    for name in params.endpoints:
        with oracle.connect(name) as model:
            rows += compare(model, params.prompt, params.samples, pairs, f"{what} ({name})")
    return rows + learned(reward, pairs) if params.learned else rows
