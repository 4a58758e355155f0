"""Rounds of feedback: which student and which preferences each training by feedback starts from.

With R rounds, round 1 learns from the warm start's candidates; each later one from the candidates
of the student before it. The last round makes models/ARM (stage `align`); earlier ones make
models/rounds/ARM-r, whose candidates, critiques and preferences go to data/rounds/ARM-r (stages
`round_*`). All of that stands in rounds.yaml, which dvc.yaml reads and `quip rounds R` writes: DVC
can expand a table into stages, but not a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from quip.core.jsonl import atomic
from quip.runtime.errors import ParamsError

FILE = Path("rounds.yaml")
FEEDBACK_ARMS = ("brio", "dpo", "brio_dpo")
OBJECTIVES = {"brio": "brio", "dpo": "dpo", "brio_dpo": "dpo"}
HEAD = """\
# Written by `quip rounds R`: feedback R times in the same total of epochs (docs/training.md).
# Each entry is one training by feedback: the student it starts from, the one dpo.reference:
# warm_start refers to, and the folder of the preferences and rankings it learns from.

"""


def table(rounds: int, arms: Sequence[str]) -> dict[str, Any]:
    """{"rounds", "last": {ARM: training}, "earlier": {ARM-r: training}}.

    `last` holds every feedback arm, so that naming another one in `arms` changes nothing as long
    as there is one round; further rounds are laid out for the arms in `arms`.
    """
    last, earlier = {}, {}
    for arm in FEEDBACK_ARMS:
        entry = training(arm, warm_start(arm), "data")
        for number in range(1, rounds if arm in arms else 1):
            name = f"{arm}-{number}"
            earlier[name] = {"arm": arm, **entry}
            entry = training(arm, f"models/rounds/{name}", f"data/rounds/{name}")
        last[arm] = entry
    return {"rounds": rounds, "last": last, "earlier": earlier}


def warm_start(arm: str) -> str:
    """`brio_dpo` starts from a student that learned by BRIO from the teacher's own texts."""
    return "models/warm/brio" if arm == "brio_dpo" else "models/sft"


def training(arm: str, start: str, feedback: str) -> dict[str, str]:
    return {
        "objective": OBJECTIVES[arm],
        "start": start,
        "reference": warm_start(arm),
        "feedback": feedback,
    }


def write(rounds: int, arms: Sequence[str], file: Path = FILE) -> dict[str, Any]:
    found = table(rounds, arms)
    with atomic(file) as handle:
        handle.write(HEAD + yaml.safe_dump(found, sort_keys=False))
    return found


def read(file: Path = FILE) -> dict[str, Any]:
    if not file.is_file():
        raise ParamsError(f"{file}: no such file. `quip rounds 1` writes it.")
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def check(arms: Sequence[str], file: Path = FILE) -> int:
    """How many rounds there are. Raises ParamsError when the file is not what `quip rounds` writes
    for these arms."""
    found = read(file)
    rounds = found.get("rounds")
    if not isinstance(rounds, int) or rounds < 1 or found != table(rounds, arms):
        right = rounds if isinstance(rounds, int) and rounds > 0 else 1
        raise ParamsError(
            f"{file} does not fit the arms of params.yaml. Run `quip rounds {right}` (or another "
            "number of rounds), then `dvc repro`."
        )
    return rounds
