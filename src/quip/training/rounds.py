"""Rounds of feedback: the start model and the feedback file of each training by feedback.

With R rounds, round 1 learns from the attempts of the warm start. Each later round learns from the
attempts of the student before it. The last round makes models/ARM. Earlier rounds make
models/rounds/ARM-r, whose candidates, critiques and preferences go to data/rounds/ARM-r.
`brio_dpo` starts from a student trained by BRIO on the teacher's own texts (training `warm_brio`).

`quip rounds R` writes all of that to rounds.yaml, and dvc.yaml reads it: DVC can expand a table
into stages, but not a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quip.core.jsonl import atomic
from quip.runtime.errors import ParamsError

FILE = Path("rounds.yaml")
FEEDBACK_ARMS = ("brio", "dpo", "brio_dpo")
OBJECTIVES = {"brio": "brio", "dpo": "dpo", "brio_dpo": "dpo"}
FEEDBACK = {"brio": "rankings.jsonl", "dpo": "preferences.jsonl"}
"""The feedback file of each objective."""
WARM_START = "sft"
HEAD = """\
# Written by `quip rounds R`: feedback R times in the same total of epochs (docs/training.md).
# attempts: whose attempts the critic compares (stages candidates, critique, preferences), and the
# folders of the results. trainings: one training by feedback each (stage align): the student it
# starts from, the one dpo.reference: warm_start refers to, what it learns from and what it makes.

"""


def table(rounds: int, arms: Sequence[str]) -> dict[str, Any]:
    """The content of rounds.yaml: {"rounds", "attempts": {STUDENT: folders}, "trainings": {NAME:
    training}}.

    Every feedback arm has an entry for its last round, so that with one round a change of `arms`
    changes nothing here. Earlier rounds have entries for the arms in `arms` only.
    """
    attempts = {WARM_START: attempt("models/sft", "data", "data/metrics")}
    trainings = {"warm_brio": warm_brio()}
    for arm in FEEDBACK_ARMS:
        start, folder = reference(arm), "data"
        for number in range(1, rounds if arm in arms else 1):
            name = f"{arm}-{number}"
            model, to = f"models/rounds/{name}", f"data/rounds/{name}"
            files = {"model": model, "curve": f"{to}/curve.csv", "run": f"{to}/run.json"}
            trainings[name] = {**training(arm, start, folder, rounds), **files}
            attempts[name] = attempt(model, to, to)
            start, folder = model, to
        files = {
            "model": f"models/{arm}",
            "curve": f"data/curves/{arm}.csv",
            "run": f"data/runs/{arm}.json",
        }
        trainings[arm] = {**training(arm, start, folder, rounds), **files}
    return {"rounds": rounds, "attempts": attempts, "trainings": trainings}


def attempt(model: str, to: str, metrics: str) -> dict[str, str]:
    """The entry of a student in `attempts`: its model and the folders of its results."""
    return {"model": model, "to": to, "metrics": metrics}


def reference(arm: str) -> str:
    """The student that an arm starts from in its first round, its DPO reference model."""
    return "models/warm/brio" if arm == "brio_dpo" else f"models/{WARM_START}"


def training(arm: str, start: str, folder: str, rounds: int) -> dict[str, Any]:
    """The entry of one training in `trainings`, without its outputs."""
    objective = OBJECTIVES[arm]
    return {
        "arm": arm,
        "wanted": arm,
        "objective": objective,
        "rounds": rounds,
        "start": start,
        "reference": reference(arm),
        "feedback": f"{folder}/{FEEDBACK[objective]}",
    }


def warm_brio() -> dict[str, Any]:
    """BRIO on the critic's rankings of the teacher's paraphrases: the warm start of `brio_dpo`."""
    to = "data/rank"
    files = {"model": "models/warm/brio", "curve": f"{to}/curve.csv", "run": f"{to}/run.json"}
    return {**training("brio", f"models/{WARM_START}", to, 1), "wanted": "brio_dpo", **files}


def earlier_students(found: Mapping[str, Any], arm: str) -> list[str]:
    """The students of an arm's earlier rounds, first round first."""
    trainings = found["trainings"]
    return [
        name for name in found["attempts"] if name in trainings and trainings[name]["arm"] == arm
    ]


def write(rounds: int, arms: Sequence[str], file: Path = FILE) -> dict[str, Any]:
    """Write rounds.yaml; returns its content."""
    found = table(rounds, arms)
    with atomic(file) as handle:
        handle.write(HEAD + yaml.safe_dump(found, sort_keys=False))
    return found


def read(file: Path = FILE) -> dict[str, Any]:
    """The content of rounds.yaml. Raises ParamsError when the file does not exist."""
    if not file.is_file():
        raise ParamsError(f"{file}: no such file. Run `quip rounds 1` to write it.")
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def check(arms: Sequence[str], file: Path = FILE) -> int:
    """The number of rounds. Raises ParamsError when the file differs from what `quip rounds` writes
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
