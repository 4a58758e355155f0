"""A training of seconds on five sentences, by each objective of quip's own loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quip.core.records import Preference, Ranking, TrainingPair
from quip.models import student
from quip.models.student import Student
from quip.training import brio as brio_module
from quip.training import dpo as dpo_module
from quip.training import loop, sft
from quip.training.trainer import Job, Training

LITERALS = ["I missed my bus.", "I ran.", "It rained.", "I lost my keys.", "My soup is cold."]
GOOD = ["my bus missed me", "My legs fled", "The sky cried", "My keys left me", "Soup on strike"]
BAD = ["the bus left", "I ran fast", "It rained a lot", "I lost them", "The soup is not warm"]


def preferences() -> list[Preference]:
    return [
        Preference(input=str(i), literal=a, chosen=b, rejected=c, confidence=0.9)
        for i, (a, b, c) in enumerate(zip(LITERALS, GOOD, BAD, strict=True))
    ]


def rankings() -> list[brio_module.RankingWithTarget]:
    rows = []
    for i, pair in enumerate(preferences()):
        texts = [pair.chosen, pair.rejected, pair.literal][: 2 + i % 2]
        ranks = list(range(len(texts)))
        ranking = Ranking(
            input=pair.input, literal=pair.literal, texts=texts, scores=[0.9, 0.4, 0.2], ranks=ranks
        )
        rows.append(brio_module.RankingWithTarget(ranking, pair.chosen if i % 2 else None))
    return rows


def params(**changes: Any) -> Training:
    settings: dict[str, Any] = {
        "epochs": 3,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "warmup_ratio": 0.1,
        "max_length": 64,
        "seed": 1,
        "precision": "fp32",
        "lora": None,
    }
    return Training(**{**settings, **changes})


class Run:
    """Keeps the live curve, where a training has an MLflow run."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, row: dict[str, float]) -> None:
        self.rows.append((step, row))


def imitation(one: Student, settings: Training) -> Any:
    pairs = [
        TrainingPair(input=p.input, literal=p.literal, paraphrase=p.chosen) for p in preferences()
    ]
    return sft.make_loop_fit(pairs[:2]), pairs


def dpo(one: Student, settings: Training) -> Any:
    weights = {"sigmoid": 1.0, "sft": 0.1}
    fit = loop.loop_fit(
        lambda student, rows, params: dpo_module.dpo_objective(
            student, rows, params, 0.1, 0.0, weights
        )
    )
    return fit, preferences()


def brio(one: Student, settings: Training) -> Any:
    fit = loop.loop_fit(
        lambda student, rows, params: brio_module.brio_objective(student, rows, params, 1.0, 0.0)
    )
    return fit, rankings()


OBJECTIVES: dict[str, Callable[[Student, Training], Any]] = {
    "imitation": imitation,
    "dpo": dpo,
    "brio": brio,
}


def train(folder: Path, objective: str, scratch: Path, **changes: Any) -> tuple[Any, Any]:
    """The trained model and its curve."""
    settings = params(**changes)
    one = student.load(folder)
    fit, rows = OBJECTIVES[objective](one, settings)
    return fit(one, rows, Job(settings, scratch, Run()))  # type: ignore[arg-type]
