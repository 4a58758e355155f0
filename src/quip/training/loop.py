"""A plain training loop, for what TRL does not train: BRIO, and every objective of an
encoder-decoder student.

AdamW without weight decay, a cosine schedule with warm-up, gradients clipped to a norm of one, as
the arguments of `quip.training.trainer` have it for TRL. The order of the rows and each step's
dropout come from the seed and the step alone, so that a training that was killed and goes on from
its last checkpoint takes the very steps it would have taken. Checkpoints are local scratch. In
several processes each takes its share of every batch, and all add up their gradients.
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
    """A mean over so many things (rows, tokens): a scalar."""

    value: Any
    over: int


Figures = dict[str, Mean]
"""What a batch adds to the curve, by name; floats."""


@dataclass(frozen=True)
class Objective:
    """What is minimised over `rows`: `loss(batch)` gives the terms of a sum to differentiate, as
    many for any batch, and figures for the curve. `dropout`: whether the student trains with it;
    `held_out()`: figures of each epoch.
    """

    rows: Sequence[Any]
    loss: Callable[[Sequence[Any]], tuple[Sequence[Mean], Figures]]
    dropout: bool
    held_out: Callable[[], dict[str, float]] | None = None


def by_loop(objective_of: Callable[[Student, Sequence[Any], Training], Objective]) -> Fit:
    """Train by this loop on the objective made of the student (with its adapters, if any)."""

    def fit(student: Student, rows: Sequence[Any], job: Job) -> tuple[Any, History]:
        params = job.params
        student.model.to("cuda" if torch.cuda.is_available() else "cpu")
        if params.lora:
            from peft import get_peft_model

            adapters = peft_config(params.lora, student.family)
            student.model = get_peft_model(student.model, adapters)
        student.model.eval()
        with autocast(student, params):
            objective = objective_of(student, rows, params)
        return student.model, minimise(student, objective, job)

    return fit


def autocast(student: Student, params: Training) -> Any:
    return torch.autocast(
        student.model.device.type, dtype=torch.bfloat16, enabled=use_bf16(params.precision)
    )


def minimise(student: Student, objective: Objective, job: Job) -> History:
    """Take every step of `job.params.epochs`; a checkpoint and the held-out figures each epoch."""
    params, model, rows = job.params, student.model, objective.rows
    an_epoch = math.ceil(len(rows) / params.batch_size)
    steps = max(1, round(an_epoch * params.epochs))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=params.learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(steps * params.warmup_ratio), steps)
    state = State(model, optimizer, schedule, job.scratch / "state.pt")
    model.train(objective.dropout)
    for step in tqdm(range(state.resume(), steps), desc="train", unit="step", disable=None):
        torch.manual_seed(seed_of(params.seed, "step", step))
        batch = [rows[i] for i in batch_of(len(rows), params, step)]
        share = batch if len(batch) < distributed.size() else distributed.mine(batch)
        with autocast(student, params):
            terms, figures = objective.loss(share)
            loss = of_all(terms)
        loss.backward()
        add_up(trained)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        state.add(step + 1, of_batch(loss, figures), schedule.get_last_lr()[0])
        schedule.step()
        optimizer.zero_grad()
        ended = step + 1 == steps
        if ended or (step + 1) % max(1, steps // 40) == 0:
            state.log(job)
        if ended or (step + 1) % an_epoch == 0:
            if objective.held_out:
                state.note(job, held_out(student, objective, params))
            state.save()
    return state.history


def of_all(terms: Sequence[Mean]) -> Tensor:
    """This process's part of the sum of the terms' means over the batches of all processes."""
    counts = terms[0].value.new_tensor([term.over for term in terms], dtype=torch.float32)
    total = counts.clone()
    if distributed.size() > 1:
        torch.distributed.all_reduce(total)
    weights = counts / total.clamp_min(1)
    return (torch.stack([term.value for term in terms]) * weights).sum()


def add_up(parameters: Sequence[Tensor]) -> None:
    """Every process's gradients become the sum of all."""
    if distributed.size() > 1:
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)


def of_batch(loss: Tensor, figures: Figures) -> dict[str, float]:
    """The figures of the whole batch out of every process's."""
    found = distributed.gathered([(loss.item(), figures)])
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


def seed_of(*parts: object) -> int:
    return int(digest(*parts)[:15], 16)


def batch_of(rows: int, params: Training, step: int) -> list[int]:
    """The places of the rows of one step: each epoch has an order of its own."""
    an_epoch = math.ceil(rows / params.batch_size)
    epoch, place = divmod(step, an_epoch)
    generator = torch.Generator().manual_seed(seed_of(params.seed, "epoch", epoch))
    order = torch.randperm(rows, generator=generator).tolist()
    return order[place * params.batch_size : (place + 1) * params.batch_size]


@torch.no_grad()
def held_out(student: Student, objective: Objective, params: Training) -> dict[str, float]:
    assert objective.held_out
    student.model.eval()
    with autocast(student, params):
        figures = objective.held_out()
    student.model.train(objective.dropout)
    return figures


class State:
    """How far a training is: the trained weights, the optimiser, the curve. Written whole."""

    def __init__(self, model: Any, optimizer: Any, schedule: Any, file: Path) -> None:
        self.model, self.optimizer, self.schedule, self.file = model, optimizer, schedule, file
        self.step = 0
        self.since: History = []
        self.history: History = []

    def resume(self) -> int:
        """The step to go on from; 0 without a checkpoint."""
        if not self.file.is_file():
            return 0
        saved = torch.load(self.file, map_location=self.model.device, weights_only=True)
        for name, value in self.trained().items():
            value.data.copy_(saved["weights"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.step, self.since, self.history = (saved[k] for k in ("step", "since", "history"))
        print(f"going on from step {self.step}")
        return self.step

    def trained(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self) -> None:
        if not distributed.first():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".tmp")
        torch.save(
            {
                "weights": {name: value.detach() for name, value in self.trained().items()},
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "step": self.step,
                "since": self.since,
                "history": self.history,
            },
            beside,
        )
        os.replace(beside, self.file)

    def add(self, step: int, figures: dict[str, float], learning_rate: float) -> None:
        self.step = step
        self.since.append({**figures, "learning_rate": learning_rate})

    def log(self, job: Job) -> None:
        """The mean figures since the last log line (the learning rate as it is now)."""
        names = {name for row in self.since for name in row}
        mean = {
            name: sum(row[name] for row in self.since if name in row)
            / sum(name in row for row in self.since)
            for name in sorted(names)
        }
        self.note(job, {**mean, "learning_rate": self.since[-1]["learning_rate"]})
        self.since = []

    def note(self, job: Job, figures: dict[str, float]) -> None:
        row = {column: figures[name] for name, column in COLUMNS.items() if name in figures}
        job.run.log(self.step, row)
        if self.history and self.history[-1]["step"] == self.step:
            self.history[-1].update(row)
        else:
            self.history.append({"step": self.step, **row})
