"""Reference model: its weights are loaded into the student for a while, and taken out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quip.core.records import Preference
from quip.models import student
from quip.models.likelihood import forward
from quip.runtime.errors import WeightsError
from quip.tracking import runs
from quip.training import dpo as dpo_module
from quip.training.dpo import both_texts, dpo_objective
from quip.training.loop import minimise
from quip.training.losses import sequence_logps
from quip.training.reference_model import reference_weights
from quip.training.trainer import Job, Training
from tiny_models import make_tiny_bart, make_tiny_student

PAIRS = [
    Preference(input="1", literal="I ran.", chosen="My legs fled", rejected="I ran", confidence=1),
    Preference(input="2", literal="It rained.", chosen="The sky", rejected="Rain", confidence=1),
]
MAKERS = {"causal": make_tiny_student, "encoder-decoder": make_tiny_bart}
FAMILIES = pytest.mark.parametrize("family", MAKERS)


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """A student and another one of the same shape."""

    def make(family: str) -> tuple[Path, Path]:
        own, other = tmp_path / "own", tmp_path / "other"
        MAKERS[family](own)
        moved = student.load(own)
        with torch.no_grad():
            for parameter in moved.model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        student.save(moved, other)
        return own, other

    return make


@torch.no_grad()
def logps(one: student.Student) -> torch.Tensor:
    one.model.eval()
    return sequence_logps(*forward(one, both_texts(PAIRS), 64))[0]


def add_adapters(one: student.Student) -> student.Student:
    from peft import LoraConfig, get_peft_model

    one.model = get_peft_model(one.model, LoraConfig(r=2, target_modules="all-linear"))
    return one


@FAMILIES
@pytest.mark.parametrize("make", [lambda one: one, add_adapters], ids=["bare", "adapters"])
def test_a_student_has_the_reference_weights_in_the_context_and_its_own_afterwards(
    family: str, make: Any, folders: Callable[[str], tuple[Path, Path]]
) -> None:
    own, other = folders(family)
    one = make(student.load(own))
    before, theirs = logps(one), logps(student.load(other))
    with reference_weights(other, one.model, own):
        assert torch.equal(logps(one), theirs)
    assert torch.equal(logps(one), before)
    assert not torch.allclose(before, theirs, atol=1e-2)


def test_adapters_added_in_the_context_stay(folders: Callable[[str], tuple[Path, Path]]) -> None:
    own, other = folders("causal")
    one = student.load(own)
    before = logps(one)
    with reference_weights(other, one.model, own):
        add_adapters(one)
    assert torch.equal(logps(one), before)
    assert any("lora_" in name for name, _ in one.model.named_parameters())


def test_weights_of_another_shape_are_refused_and_the_student_keeps_its_own(
    folders: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    own, _ = folders("causal")
    foreign = tmp_path / "foreign"
    make_tiny_bart(foreign)
    one = student.load(own)
    before = logps(one)
    with (
        pytest.raises(WeightsError, match="foreign: no weights that fit"),
        reference_weights(foreign, one.model, own),
    ):
        pass
    assert torch.equal(logps(one), before)


@pytest.mark.parametrize("lora", [None, student.Lora(r=2, alpha=4, dropout=0.0)])
def test_dpo_uses_the_reference_model_and_trains_the_start_model(
    lora: Any, folders: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """TRL's trainer holds the reference's log-probabilities; its model is the start."""
    own, other = folders("causal")
    one = student.load(own)
    dpo = dpo_module.Dpo(
        beta=0.1,
        loss_type=["sigmoid"],
        loss_weights=[1.0],
        label_smoothing=0.0,
        ld_alpha=None,
        reference="warm_start",
    )
    shared = {"output_dir": str(tmp_path / "out"), "report_to": "none", "use_cpu": True}
    shared |= {"bf16": False, "gradient_checkpointing": False}
    with dpo_module.use_reference(one, str(own), str(other)):
        trainer = dpo_module.dpo_trainer(one, PAIRS, shared, lora, dpo)
    asked = logps(student.load(other)).tolist()
    assert list(trainer.train_dataset["ref_chosen_logps"]) == pytest.approx(asked[:2], abs=1e-4)
    assert list(trainer.train_dataset["ref_rejected_logps"]) == pytest.approx(asked[2:], abs=1e-4)
    start = logps(student.load(own)).tolist()
    found = logps(student.Student(trainer.model, one.tokenizer)).tolist()
    assert found == pytest.approx(start, abs=1e-4)


@FAMILIES
def test_quip_s_own_loop_keeps_the_reference_model_while_the_student_moves(
    family: str, folders: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    """Bit for bit: the rows hold the other model's log-probabilities before and after training."""
    own, other = folders(family)
    one, asked, start = student.load(own), logps(student.load(other)), logps(student.load(own))
    settings = Training(
        epochs=3,
        batch_size=2,
        learning_rate=1e-3,
        warmup_ratio=0.1,
        max_length=64,
        seed=1,
        precision="fp32",
        lora=None,
    )
    with dpo_module.use_reference(one, str(own), str(other)):
        objective = dpo_objective(one, PAIRS, settings, 0.1, 0.0, {"sigmoid": 1.0})
    assert torch.equal(logps(one), start)
    minimise(one, objective, Job(settings, tmp_path / "scratch", runs.Run()))
    held = [row.ref_chosen for row in objective.rows] + [row.ref_rejected for row in objective.rows]
    assert held == asked.tolist()
    assert not torch.allclose(logps(one), start, atol=1e-2)
