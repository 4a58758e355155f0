"""The losses: values worked by hand, limits, signs of gradients, equality with TRL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from quip.core.records import Preference
from quip.models import student
from quip.models.likelihood import forward
from quip.models.packing import IGNORED
from quip.training import dpo as dpo_module
from quip.training.dpo import both_texts
from quip.training.losses import (
    ABSENT,
    cross_entropy,
    dpo_loss,
    ranking_loss,
    robust_dpo_loss,
    sequence_logps,
)

LOG2 = math.log(2)


def dpo(chosen: float, rejected: float, smoothing: Any = 0.0, beta: float = 0.1) -> Any:
    """The loss of one pair whose log-probabilities moved by `chosen` and `rejected`."""
    zero = torch.zeros(1)
    return dpo_loss(
        torch.tensor([chosen]), torch.tensor([rejected]), zero, zero, beta, smoothing
    ).item()


# ---- DPO


def test_the_loss_of_an_unchanged_student_is_log_2() -> None:
    assert dpo(0.0, 0.0) == pytest.approx(LOG2)
    assert dpo(-3.0, -3.0, smoothing=0.3) == pytest.approx(LOG2)


def test_worked_dpo_values() -> None:
    """beta (5 + 5) = 1: -log sigmoid(1) = log(1 + 1/e)."""
    right, wrong = math.log(1 + math.exp(-1)), math.log(1 + math.e)
    assert dpo(5.0, -5.0) == pytest.approx(right)
    assert dpo(-5.0, 5.0) == pytest.approx(wrong)
    assert dpo(5.0, -5.0, smoothing=0.2) == pytest.approx(0.8 * right + 0.2 * wrong)


def test_only_the_distance_from_the_reference_counts() -> None:
    shift = torch.tensor([7.0])
    moved = dpo_loss(shift + 2, shift - 1, shift, shift, 0.3)
    assert moved.item() == pytest.approx(dpo(2.0, -1.0, beta=0.3), rel=1e-5)


def test_soft_labels_are_one_smoothing_a_pair() -> None:
    zero, up = torch.zeros(2), torch.tensor([4.0, 4.0])
    found = dpo_loss(up, zero, zero, zero, 0.1, torch.tensor([0.0, 0.4])).tolist()
    assert found == pytest.approx([dpo(4.0, 0.0), dpo(4.0, 0.0, smoothing=0.4)])


def test_robust_dpo_is_right_on_average_over_flipped_labels() -> None:
    """A share e of flipped pairs in the data, undone: (1 - e) robust(d) + e robust(-d) is the loss
    without any."""
    zero = torch.zeros(2)
    moved = torch.tensor([4.0, -4.0])
    right, flipped = robust_dpo_loss(moved, zero, zero, zero, 0.5, 0.2).tolist()
    assert 0.8 * right + 0.2 * flipped == pytest.approx(dpo(4.0, 0.0, beta=0.5))


@pytest.fixture
def pairs() -> list[Preference]:
    rows = [
        ("I missed my bus.", "my bus missed me", "the bus left"),
        ("I ran.", "My legs fled the scene of my laziness.", "I ran fast"),
        ("It rained.", "The sky did my laundry", "It rained a lot on all of us today"),
    ]
    return [
        Preference(input=str(i), literal=a, chosen=b, rejected=c, confidence=0.9)
        for i, (a, b, c) in enumerate(rows)
    ]


SETTINGS: dict[str, Any] = {"loss_weights": [1.0], "ld_alpha": None, "reference": "warm_start"}


@pytest.mark.parametrize(("term", "smoothing"), [("sigmoid", 0.0), ("robust", 0.2)])
def test_dpo_loss_equals_trl_s_on_the_same_model_and_batch(
    term: Any, smoothing: float, tiny_student: Path, tmp_path: Path, pairs: list[Preference]
) -> None:
    """TRL's trainer itself computes the loss of a student that differs from the reference. Its
    "sigmoid" leaves label_smoothing out, its "robust" has it."""
    moved = student.load(tiny_student)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in moved.model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    settings = dpo_module.Dpo(beta=0.3, loss_type=[term], label_smoothing=smoothing, **SETTINGS)
    shared = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True, "bf16": False}
    shared |= {"per_device_train_batch_size": 3, "gradient_checkpointing": False}
    trainer = dpo_module.dpo_trainer(student.load(tiny_student), pairs, shared, None, settings)
    trainer.model.load_state_dict(moved.model.state_dict())
    batch = next(iter(trainer.get_train_dataloader()))
    theirs = trainer.compute_loss(trainer.model, batch).item()

    logps = []
    for one in (moved, student.load(tiny_student)):
        with torch.no_grad():
            found = sequence_logps(*forward(one, both_texts(pairs), 128))[0]
        logps += [found[:3], found[3:]]
    ours = (
        {"sigmoid": dpo_loss, "robust": robust_dpo_loss}[term](*logps, 0.3, smoothing).mean().item()
    )
    assert abs(ours - LOG2) > 1e-3, "the student must differ from the reference"
    assert ours == pytest.approx(theirs, abs=1e-5)


# ---- BRIO


def brio(scores: list[float], ranks: list[int] | None = None, mean_length: float = 1.0) -> float:
    places = list(range(len(scores))) if ranks is None else ranks
    found = ranking_loss(torch.tensor([scores]), torch.tensor([places]), mean_length)
    return float(found)


@pytest.mark.parametrize(
    ("scores", "loss"),
    [
        ([-1.0, -2.0], 0.0),  # in order, further apart than log 2
        ([-1.0, -1.0], LOG2),  # tied
        ([-2.0, -1.0], 1 + LOG2),  # reversed
        ([-1.0, -1.0 - LOG2], 0.0),  # exactly at the margin
        ([-1.0, -2.0, -3.0], 0.0),
        ([-3.0, -2.0, -1.0], (1 + LOG2) + (1 + LOG2) + (2 + 2 * LOG2)),
        ([-1.0, -1.0, -1.0], LOG2 + LOG2 + 2 * LOG2),
        ([-1.0, -3.0, -2.0], (1 + LOG2) + (2 * LOG2 - 1)),  # the last is two ranks below
    ],
)
def test_worked_ranking_losses(scores: list[float], loss: float) -> None:
    assert brio(scores) == pytest.approx(loss, abs=1e-6)


def test_the_margin_is_log_2_over_the_mean_length_a_rank() -> None:
    assert brio([-1.0, -1.0], mean_length=20.0) == pytest.approx(LOG2 / 20)
    assert brio([-1.0, -1.0], ranks=[0, 3], mean_length=20.0) == pytest.approx(3 * LOG2 / 20)


def test_texts_of_unlike_length_are_compared_by_log_probability_a_token() -> None:
    """6 tokens at -1.5 each against 2 at -2: the longer is less likely and scores better."""
    logps, tokens = torch.tensor([[-9.0, -4.0]]), torch.tensor([[6, 2]])
    loss = ranking_loss(logps / tokens, torch.tensor([[0, 1]]), 4.0)
    assert loss.item() == pytest.approx(max(0.0, -2.0 + 1.5 + LOG2 / 4))
    assert ranking_loss(logps / tokens, torch.tensor([[1, 0]]), 4.0).item() == pytest.approx(
        0.5 + LOG2 / 4
    )


def test_texts_of_equal_rank_are_not_compared() -> None:
    assert brio([-1.0, -5.0, -2.0], ranks=[0, 1, 1]) == pytest.approx(0.0)
    assert brio([-1.0, -1.0], ranks=[0, 0]) == 0.0


def test_a_place_without_a_candidate_costs_nothing() -> None:
    with_absent = ranking_loss(
        torch.tensor([[-2.0, -1.0, 0.0], [-1.0, -1.0, -1.0]]),
        torch.tensor([[0, 1, ABSENT], [0, 1, 2]]),
        1.0,
    )
    assert with_absent.item() == pytest.approx(((1 + LOG2) + 4 * LOG2) / 2)


def gradient(scores: list[float]) -> list[float]:
    tensor = torch.tensor([scores], requires_grad=True)
    ranking_loss(tensor, torch.tensor([list(range(len(scores)))]), 1.0).backward()
    assert tensor.grad is not None
    return list(tensor.grad[0].tolist())


def test_the_gradient_raises_the_better_text_and_lowers_the_worse() -> None:
    assert gradient([-2.0, -1.0]) == [-1.0, 1.0]
    assert gradient([-1.0, -1.0, -1.0]) == [-2.0, 0.0, 2.0]


def test_at_and_beyond_the_margin_there_is_no_gradient() -> None:
    assert gradient([-0.0, -LOG2]) == [0.0, 0.0]
    assert gradient([-1.0, -4.0]) == [0.0, 0.0]


# ---- cross-entropy and log-probabilities


def one_hot_logits(p: float, labels: Tensor, vocabulary: int) -> Tensor:
    """Logits that put `p` on each label and the rest evenly on the others."""
    spread = torch.full((*labels.shape, vocabulary), math.log((1 - p) / (vocabulary - 1)))
    return spread.scatter(-1, labels.clamp_min(0).unsqueeze(-1), math.log(p))


def test_cross_entropy_is_the_mean_over_tokens_of_all_texts() -> None:
    labels = torch.tensor([[1, 2, 3], [1, IGNORED, IGNORED]])
    logits = one_hot_logits(0.5, labels, 5)
    logits[1] = one_hot_logits(0.1, labels[1:], 5)[0]
    expected = -(3 * math.log(0.5) + math.log(0.1)) / 4
    assert cross_entropy(logits, labels).item() == pytest.approx(expected)


def test_smoothing_mixes_in_the_uniform_distribution() -> None:
    labels = torch.tensor([[2]])
    logits = one_hot_logits(0.6, labels, 5)
    uniform = -(math.log(0.6) + 4 * math.log(0.1)) / 5
    expected = 0.9 * -math.log(0.6) + 0.1 * uniform
    assert cross_entropy(logits, labels, 0.1).item() == pytest.approx(expected)


def test_a_text_s_log_probability_is_the_sum_over_its_own_tokens() -> None:
    labels = torch.tensor([[IGNORED, 1, 2], [3, IGNORED, IGNORED]])
    logps, tokens = sequence_logps(one_hot_logits(0.5, labels, 5), labels)
    assert logps.tolist() == pytest.approx([2 * math.log(0.5), math.log(0.5)])
    assert tokens.tolist() == [2, 1]
