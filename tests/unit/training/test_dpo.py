"""Label noise in DPO of either family: soft labels and label smoothing."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quip.core.jsonl import write_rows
from quip.core.records import Preference
from quip.models import student
from quip.models.likelihood import forward
from quip.models.student import Student
from quip.training import dpo
from quip.training.dpo import Smoothing, both_texts, dpo_objective, reference_logps
from quip.training.losses import sequence_logps
from quip.training.trainer import Job, Training

BETA = 0.3
TEXTS = [
    ("I missed my bus.", "my bus missed me", "the bus left", 0.97),
    ("I ran.", "My legs fled the scene of my laziness.", "I ran fast", 0.8),
    ("It rained.", "The sky did my laundry", "It rained a lot on all of us today", 0.61),
]


def pairs(confidence: float | None = None) -> list[Preference]:
    return [
        Preference(input=a, literal=a, chosen=b, rejected=c, confidence=confidence or own)
        for a, b, c, own in TEXTS
    ]


PARAMS = Training(
    **{"epochs": 1, "batch_size": 3, "learning_rate": 1e-3, "warmup_ratio": 0.0},
    **{"max_length": 64, "seed": 1, "precision": "fp32", "lora": None},
)


@pytest.fixture(params=["tiny_student", "tiny_bart"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def load_moved(folder: Path) -> Student:
    """A student that differs from the reference."""
    found = student.load(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return found


def loss(
    folder: Path, rows: list[Preference], smoothing: Smoothing, term: str = "sigmoid"
) -> float:
    """The loss of quip's own loop on one batch of all rows."""
    objective = dpo_objective(load_moved(folder), rows, PARAMS, BETA, smoothing, {term: 1.0})
    terms, _ = objective.loss(reference_logps(student.load(folder), rows, PARAMS))
    return float(sum(term.value.item() for term in terms))


def margins(folder: Path) -> list[float]:
    """beta ((chosen - ref_chosen) - (rejected - ref_rejected)) of every pair."""
    gaps = []
    for one in (load_moved(folder), student.load(folder)):
        with torch.no_grad():
            logps = sequence_logps(*forward(one, both_texts(pairs()), 64))[0]
        gaps.append(logps[:3] - logps[3:])
    return [BETA * gap for gap in (gaps[0] - gaps[1]).tolist()]


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_soft_labels_are_the_cross_entropy_to_the_critic_s_preference(folder: Path) -> None:
    """Its debiased preference p for the chosen text is the target: -p log s(m) - (1 - p) log s(-m),
    s the sigmoid and m the margin."""
    each = [
        -pair.confidence * log_sigmoid(m) - (1 - pair.confidence) * log_sigmoid(-m)
        for pair, m in zip(pairs(), margins(folder), strict=True)
    ]
    assert min(abs(m) for m in margins(folder)) > 1e-3
    assert loss(folder, pairs(), "confidence") == pytest.approx(sum(each) / 3, abs=1e-5)


def test_equal_confidence_is_one_smoothing_and_certainty_is_none(folder: Path) -> None:
    assert loss(folder, pairs(0.8), "confidence") == pytest.approx(loss(folder, pairs(), 0.2))
    assert loss(folder, pairs(1.0), "confidence") == pytest.approx(loss(folder, pairs(), 0.0))
    assert loss(folder, pairs(0.8), "confidence") != pytest.approx(loss(folder, pairs(), 0.0))


def test_a_pair_of_confidence_one_half_has_no_gradient(folder: Path) -> None:
    """At the reference the gradient of a pair is (1/2 - p) times its margin's."""

    def push(confidence: float) -> float:
        one, rows = student.load(folder), pairs(confidence)
        one.model.eval()
        objective = dpo_objective(one, rows, PARAMS, BETA, "confidence", {"sigmoid": 1.0})
        sum(term.value for term in objective.loss(objective.rows)[0]).backward()
        gradients = [p.grad.norm() for p in one.model.parameters() if p.grad is not None]
        return float(torch.stack(gradients).norm())

    assert push(0.5) < 1e-5 * push(1.0)
    assert push(0.75) == pytest.approx(push(1.0) / 2, rel=1e-3)


class Run:
    """Where a training's curve goes."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        assert math.isfinite(figures.get("loss", 0.0))


def test_the_stage_trains_either_family_on_soft_labels(
    folder: Path, project: Callable[..., Path], tmp_path: Path
) -> None:
    project(dpo={"label_smoothing": "confidence"})
    write_rows("preferences.jsonl", pairs())
    files = Namespace(start=str(folder), reference="", feedback="preferences.jsonl")
    fit, _, rows, settings = dpo.dpo_recipe(files, PARAMS)
    job = Job(PARAMS, tmp_path / "scratch", Run())  # type: ignore[arg-type]
    trained, history = fit(student.load(folder), rows, job)
    assert settings["label_smoothing"] == "confidence"
    assert history[-1]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    before = student.load(folder).model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in trained.state_dict().items())


# ---- against TRL, which has a label smoothing for `robust` only


def by_trl(
    folder: Path, out: Path, rows: list[Preference], term: Any = "sigmoid", smoothing: float = 0.0
) -> float:
    settings = dpo.Dpo(
        **{"beta": BETA, "loss_type": [term], "loss_weights": [1.0], "ld_alpha": None},
        label_smoothing=smoothing,
        reference="warm_start",
    )
    shared = {"output_dir": str(out), "report_to": "none", "use_cpu": True, "bf16": False}
    shared |= {"per_device_train_batch_size": 3, "gradient_checkpointing": False}
    trainer = dpo.dpo_trainer(student.load(folder), rows, shared, None, settings)
    trainer.model.load_state_dict(load_moved(folder).model.state_dict())
    batch = next(iter(trainer.get_train_dataloader()))
    return float(trainer.compute_loss(trainer.model, batch).item())


def test_one_smoothing_for_all_pairs_is_trl_s(tiny_student: Path, tmp_path: Path) -> None:
    theirs = by_trl(tiny_student, tmp_path, pairs(), "robust", 0.2)
    assert loss(tiny_student, pairs(), 0.2, "robust") == pytest.approx(theirs, abs=1e-5)
    assert theirs != pytest.approx(by_trl(tiny_student, tmp_path, pairs()), abs=1e-3)


def test_conservative_dpo_is_trl_s_loss_of_the_pairs_and_of_the_pairs_turned_round(
    tiny_student: Path, tmp_path: Path
) -> None:
    turned = [
        pair.model_copy(update={"chosen": pair.rejected, "rejected": pair.chosen})
        for pair in pairs()
    ]
    right, wrong = (by_trl(tiny_student, tmp_path, rows) for rows in (pairs(), turned))
    found = loss(tiny_student, pairs(0.8), "confidence")
    assert found == pytest.approx(0.8 * right + 0.2 * wrong, abs=1e-5)
