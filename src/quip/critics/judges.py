"""Judges: asks every judge of params.yaml about the same pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from quip.core.params import Section
from quip.core.records import Critique, Split
from quip.critics import learned
from quip.critics.comparison import Comparison
from quip.critics.multiple_choice import compare
from quip.llm import connection
from quip.runtime.errors import DataError


class JudgeParams(Section):
    """Section `judge`, read by `judge`, `duel` and `control`."""

    endpoints: list[str]
    learned: bool
    """Whether the learned critic is also a judge."""
    prompt: str
    samples: int
    splits: list[Split]
    control_inputs: int
    """Inputs for the A/A control and the copy baseline."""
    duel_inputs: Annotated[int, Field(ge=1)] | None
    """Number of test inputs on which an endpoint compares two arms; None: all. The learned critic,
    which costs no call, always compares all."""


class JudgeAnswers(NamedTuple):
    """The critiques of all judges, and the ledger of each judge that costs calls."""

    rows: list[Critique]
    spent: dict[str, dict[str, float | str]]


def ask_judges(
    params: JudgeParams,
    reward: str | Path,
    pairs: Sequence[Comparison],
    what: str,
    endpoint_pairs: Sequence[Comparison] | None = None,
) -> JudgeAnswers:
    """Ask all judges, one after the other; critiques are in the order of `pairs`.

    `reward` is the folder of the learned critic. Endpoints, which cost calls, are asked about
    `endpoint_pairs` instead, where given. Raises DataError when there is no pair."""
    if not pairs:
        raise DataError(f"{what}: no pairs to compare (no input has a teacher reference).")
    rows: list[Critique] = []
    spent = {}
    asked = pairs if endpoint_pairs is None else endpoint_pairs
    for name in params.endpoints:
        with connection.connect(name) as llm:
            rows += compare(llm, params.prompt, params.samples, asked, f"{what} ({name})")
            spent[name] = llm.spent()
    return JudgeAnswers(rows + learned.compare(reward, pairs) if params.learned else rows, spent)
