"""quip's own training loop: which weights it trains, its row order, and resuming after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import tiny_training
from quip.models import student
from quip.models.student import Lora, Student
from quip.training import loop
from quip.training.loop import Objective, batch_indices
from quip.training.trainer import Job
from repository import SOURCE
from tiny_training import OBJECTIVES, Run, params, preferences, train

SUPPORT = Path(tiny_training.__file__).parent
FAMILIES = pytest.mark.parametrize("family", ["causal", "encoder-decoder"])
EVERY = pytest.mark.parametrize("objective", list(OBJECTIVES))


@pytest.fixture
def folders(tiny_student: Path, tiny_bart: Path) -> dict[str, Path]:
    return {"causal": tiny_student, "encoder-decoder": tiny_bart}


@FAMILIES
@EVERY
def test_every_parameter_moves(
    family: str, objective: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    before = student.load(folders[family]).model.state_dict()
    model, history = train(folders[family], objective, tmp_path)
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert not still
    assert history[-1]["step"] == 9
    assert history[-1]["loss"] < history[0]["loss"]


@FAMILIES
@EVERY
def test_with_adapters_they_alone_move_and_are_merged_when_saved(
    family: str, objective: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    before = student.load(folders[family])
    lora = Lora(r=4, alpha=8, dropout=0.0)
    model, _ = train(folders[family], objective, tmp_path / "scratch", lora=lora)
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    for name, value in frozen.items():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert torch.equal(value, before.model.state_dict()[plain]), name
    moved = [n for n, p in model.named_parameters() if p.requires_grad and "lora_B" in n]
    assert moved
    assert all(model.get_parameter(name).abs().sum() > 0 for name in moved)
    student.save(Student(model, before.tokenizer), tmp_path / "saved")
    merged = student.load(tmp_path / "saved").model
    assert merged.state_dict().keys() == before.model.state_dict().keys()
    changed = [
        n for n, p in merged.named_parameters() if not torch.equal(p, before.model.state_dict()[n])
    ]
    assert len(changed) == len(moved)


@FAMILIES
def test_dpo_and_brio_learn_the_preferred_texts(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for objective, sign in (("dpo", "rewards"), ("brio", "ranking")):
        _, history = train(
            folders[family], objective, tmp_path / objective, epochs=12, learning_rate=5e-3
        )
        column = "reward_margin" if sign == "rewards" else "ranking_loss"
        gain = history[-1][column] - history[0][column]
        assert gain > 0 if objective == "dpo" else gain < 0


# ---- order, checkpoints, resuming


def test_every_epoch_shows_each_row_once_in_an_order_of_its_own() -> None:
    settings = params(batch_size=4)
    epochs = [
        [i for step in range(3 * e, 3 * e + 3) for i in batch_indices(10, settings, step)]
        for e in (0, 1)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    assert [len(batch_indices(10, settings, step)) for step in range(3)] == [4, 4, 2]


def test_a_part_of_an_epoch_takes_its_share_of_the_steps(tiny_bart: Path, tmp_path: Path) -> None:
    """5 rows in batches of 2 are 3 steps an epoch: a third of two epochs is 2 steps."""
    _, history = train(tiny_bart, "dpo", tmp_path, epochs=2 / 3)
    assert history[-1]["step"] == 2


def test_the_held_out_loss_is_measured_each_epoch(tiny_bart: Path, tmp_path: Path) -> None:
    _, history = train(tiny_bart, "imitation", tmp_path)
    assert [row["step"] for row in history if "eval_loss" in row] == [3, 6, 9]


def child(folder: Path, objective: str, scratch: Path, slow: float) -> subprocess.Popen[bytes]:
    """The same training in another process, which waits before each step after the first epoch."""
    script = (
        "import sys, time, pathlib, tiny_training, quip.training.loop as loop\n"
        "from quip.models import student\n"
        "student.cores = lambda: 1\n"
        "folder, objective, scratch, slow = sys.argv[1:]\n"
        "batch_indices = loop.batch_indices\n"
        "def wait_first(rows, params, step):\n"
        "    if step >= 5: time.sleep(float(slow))\n"
        "    return batch_indices(rows, params, step)\n"
        "loop.batch_indices = wait_first\n"
        "tiny_training.train(pathlib.Path(folder), objective, pathlib.Path(scratch))\n"
    )
    path = os.pathsep.join(map(str, (SUPPORT, SOURCE)))
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder), objective, str(scratch), str(slow)],
        env={**os.environ, "PYTHONPATH": path},
    )


@pytest.mark.parametrize(
    ("family", "objective"), [("encoder-decoder", "imitation"), ("causal", "brio")]
)
def test_a_training_killed_and_resumed_ends_as_one_that_was_not(
    family: str, objective: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """SIGKILL in the middle of the second epoch, in a process of its own; with dropout, too."""
    whole, expected = train(folders[family], objective, tmp_path / "whole")
    process = child(folders[family], objective, tmp_path / "cut", slow=600)
    while not (tmp_path / "cut" / "state.pt").exists():
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    model, history = train(folders[family], objective, tmp_path / "cut")
    assert [row["step"] for row in history] == [row["step"] for row in expected]
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=1e-6)
    for name, value in model.state_dict().items():
        assert torch.allclose(value, whole.state_dict()[name], atol=1e-6), name


def test_resuming_takes_no_step_twice(tiny_bart: Path, tmp_path: Path) -> None:
    """A training that had ended is only read back: no step, the same curve."""
    _, first = train(tiny_bart, "dpo", tmp_path)
    steps: list[int] = []
    one, settings = student.load(tiny_bart), params()
    fit = loop.loop_fit(
        lambda student, rows, params: Objective(
            rows, lambda batch: steps.append(1) or (torch.zeros(()), {}), dropout=False
        )
    )
    _, again = fit(one, preferences(), Job(settings, tmp_path, Run()))  # type: ignore[arg-type]
    assert (steps, again) == ([], first)
