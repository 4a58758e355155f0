"""Training loop of quip's own, for objectives that TRL does not train: BRIO, and every objective of
an encoder-decoder student.

The optimiser is AdamW without weight decay, with a cosine schedule, warm-up and gradients clipped
to norm 1, the same as `quip.training.trainer.arguments` sets for TRL. The row order and each step's
dropout depend on the seed and the step only. A killed training that resumes from its last
checkpoint therefore takes the same steps. Checkpoints are local scratch. With several processes
each one takes its shard of every batch, and the gradients are summed over all.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from quip.core.text import digest
from quip.models.hardware import use_bf16
from quip.models.student import Student
from quip.training import distributed
from quip.training.trainer import COLUMNS, Fit, Job, Training, peft_config

History = list[dict[str, float]]


class Mean(NamedTuple):
    """A mean, a scalar, and how many things (rows or tokens) it is over."""

    value: Any
    over: int


Metrics = dict[str, Mean]
"""The metrics of a batch by name, for the training curve; the values are floats."""


@dataclass(frozen=True)
class Objective:
    """What a training minimises.

    rows      the training rows
    loss      batch -> (terms of the loss, whose sum is differentiated; metrics). The number of
              terms is the same for every batch
    dropout   whether the student trains with dropout
    held_out  metrics on held-out rows, called each epoch
    """

    rows: Sequence[Any]
    loss: Callable[[Sequence[Any]], tuple[Sequence[Mean], Metrics]]
    dropout: bool
    held_out: Callable[[], dict[str, float]] | None = None


def loop_fit(make_objective: Callable[[Student, Sequence[Any], Training], Objective]) -> Fit:
    """A Fit by this loop. `make_objective` gets the student, with its adapters if there are any."""

    def fit(student: Student, rows: Sequence[Any], job: Job) -> tuple[Any, History]:
        params = job.params
        student.model.to("cuda" if torch.cuda.is_available() else "cpu")
        if params.lora:
            from peft import get_peft_model

            adapters = peft_config(params.lora, student.family)
            student.model = get_peft_model(student.model, adapters)
        student.model.eval()
        with autocast(student, params):
            objective = make_objective(student, rows, params)
        return student.model, minimise(student, objective, job)

    return fit


def autocast(student: Student, params: Training) -> Any:
    """The mixed-precision context of one step, on the student's device."""
    return torch.autocast(
        student.model.device.type, dtype=torch.bfloat16, enabled=use_bf16(params.precision)
    )


def minimise(student: Student, objective: Objective, job: Job) -> History:
    """Train for `job.params.epochs`; write a checkpoint and log the held-out metrics each epoch.

    Returns the training curve, one row for each logged step.
    """
    params, model, rows = job.params, student.model, objective.rows
    epoch_steps = math.ceil(len(rows) / params.batch_size)
    steps = max(1, round(epoch_steps * params.epochs))
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=params.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(steps * params.warmup_ratio), steps)
    state = TrainingState(model, optimizer, schedule, job.scratch / "state.pt")
    model.train(objective.dropout)
    for step in tqdm(range(state.resume(), steps), desc="train", unit="step", disable=None):
        torch.manual_seed(step_seed(params.seed, "step", step))
        batch = [rows[i] for i in batch_indices(len(rows), params, step)]
        shard = batch if len(batch) < distributed.world_size() else distributed.local_shard(batch)
        with autocast(student, params):
            terms, metrics = objective.loss(shard)
            loss = global_loss(terms)
        loss.backward()
        sum_gradients(trainable)
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        state.add(step + 1, batch_metrics(loss, metrics), schedule.get_last_lr()[0])
        schedule.step()
        optimizer.zero_grad()
        last = step + 1 == steps
        if last or (step + 1) % max(1, steps // 40) == 0:
            state.log(job)
        if last or (step + 1) % epoch_steps == 0:
            if objective.held_out:
                state.record(job, evaluate_held_out(student, objective, params))
            state.save()
    return state.history


def global_loss(terms: Sequence[Mean]) -> Tensor:
    """This process's part of the loss: the sum over the terms of their means over all processes."""
    counts = terms[0].value.new_tensor([term.over for term in terms], dtype=torch.float32)
    total = counts.clone()
    if distributed.world_size() > 1:
        torch.distributed.all_reduce(total)
    weights = counts / total.clamp_min(1)
    return (torch.stack([term.value for term in terms]) * weights).sum()


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum the gradients over all processes, in place."""
    if distributed.world_size() > 1:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)


def batch_metrics(loss: Tensor, metrics: Metrics) -> dict[str, float]:
    """The metrics of a whole batch from those of each process's shard."""
    found = distributed.gather([(loss.item(), metrics)])
    means: dict[str, list[Mean]] = {}
    for _, part in found:
        for name, mean in part.items():
            means.setdefault(name, []).append(mean)
    return {
        "loss": sum(part for part, _ in found),
        **{
            name: sum(mean.value * mean.over for mean in each) / sum(mean.over for mean in each)
            for name, each in means.items()
        },
    }


def step_seed(*parts: object) -> int:
    """A 60-bit seed from (seed, what it is for, number)."""
    return int(digest(*parts)[:15], 16)


def batch_indices(rows: int, params: Training, step: int) -> list[int]:
    """The row indices of one step. Each epoch shuffles the rows anew."""
    epoch, place = divmod(step, math.ceil(rows / params.batch_size))
    generator = torch.Generator().manual_seed(step_seed(params.seed, "epoch", epoch))
    order = torch.randperm(rows, generator=generator).tolist()
    return order[place * params.batch_size : (place + 1) * params.batch_size]


@torch.no_grad()
def evaluate_held_out(student: Student, objective: Objective, params: Training) -> dict[str, float]:
    """The objective's held-out metrics, with the student in evaluation mode meanwhile."""
    assert objective.held_out
    student.model.eval()
    with autocast(student, params):
        metrics = objective.held_out()
    student.model.train(objective.dropout)
    return metrics


class TrainingState:
    """The state of a training: weights, optimiser, schedule, curve, and its checkpoint file.

    `since` holds the metrics of the steps since the last logged row.
    """

    def __init__(self, model: Any, optimizer: Any, schedule: Any, file: Path) -> None:
        self.model, self.optimizer, self.schedule, self.file = model, optimizer, schedule, file
        self.step = 0
        self.since: History = []
        self.history: History = []

    def resume(self) -> int:
        """Load the checkpoint, if there is one; returns the step to resume from, else 0."""
        if not self.file.is_file():
            return 0
        saved = torch.load(self.file, map_location=self.model.device, weights_only=True)
        for name, value in self.trainable_weights().items():
            value.data.copy_(saved["weights"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.since, self.history = (saved[k] for k in ("step", "since", "history"))
        print(f"resuming from step {self.step}")
        return self.step

    def trainable_weights(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; only the first process writes."""
        if not distributed.is_first():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".tmp")
        torch.save(
            {
                "weights": {k: v.detach() for k, v in self.trainable_weights().items()},
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "step": self.step,
                "since": self.since,
                "history": self.history,
            },
            beside,
        )
        os.replace(beside, self.file)

    def add(self, step: int, metrics: dict[str, float], learning_rate: float) -> None:
        """Keep the metrics of one step until the next `log`."""
        self.step = step
        self.since.append({**metrics, "learning_rate": learning_rate})

    def log(self, job: Job) -> None:
        """Record the mean metrics since the last logged row, with the present learning rate."""
        names = {name for row in self.since for name in row}
        mean = {
            name: sum(row[name] for row in self.since if name in row)
            / sum(name in row for row in self.since)
            for name in sorted(names)
        }
        self.record(job, {**mean, "learning_rate": self.since[-1]["learning_rate"]})
        self.since = []

    def record(self, job: Job, metrics: dict[str, float]) -> None:
        """Add metrics to the curve's row of the present step, here and in the MLflow run."""
        row = {column: metrics[name] for name, column in COLUMNS.items() if name in metrics}
        job.run.log(self.step, row)
        if self.history and self.history[-1]["step"] == self.step:
            self.history[-1].update(row)
        else:
            self.history.append({"step": self.step, **row})
