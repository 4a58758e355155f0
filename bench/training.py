"""Training bench: operations, CPU time and share of peak FLOP/s against plain TRL 1.16.

    python bench/training.py            # SmolLM2-135M, shipped gold pairs; five minutes
    python bench/training.py --rounds 9

Both sides take the same steps on the same batches in the same order from the same weights, in
turns, in one process, on one thread; each ratio is printed with the difference of the losses. Plain
TRL has its defaults, except for float32 and no gradient checkpointing, which a CPU needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"

import guard
import torch
from datasets import Dataset
from flops import count_operations

from quip.core.records import Preference, TrainingPair
from quip.models import student
from quip.models.hardware import use_bf16
from quip.training.dpo import trl_rows
from quip.training.sft import prompt_completion
from quip.training.trainer import DRIFT

BASE = "smollm2-135m-instruct"
GOLD = Path(__file__).parent.parent / "data" / "raw" / "gold.jsonl"
EPOCHS = 2
"""As align.epochs and baseline.epochs: one reference pass serves this number of epochs."""
SAME = 1e-4
"""Largest difference of the losses at any step in float32; in bfloat16 the limit for the mean is
DRIFT, as in training."""
DPO_BATCH, SFT_BATCH = 8, 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    peaks = {"fp32": peak_flops(torch.float32), "bf16": peak_flops(torch.bfloat16)}
    reached = ", ".join(f"{value / 1e9:,.0f} GFLOP/s in {name}" for name, value in peaks.items())
    print(f"{guard.hardware()}; one thread; a matrix product reaches {reached}")
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("dpo", dpo), ("sft", sft)):
            sides = {
                "trl": Side(make(folder, rounds, plain=True)),
                "fp32": Side(make(folder, rounds, plain=False)),
            }
            if use_bf16("auto"):
                sides["bf16"] = Side(make(folder, rounds, plain=False, bf16=True))
            ratios |= compare(name, sides, rounds, peaks)
    guard.report_and_record(ratios)


class Side:
    """A trainer that takes one step at a time, equal to a step of its `train`."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.model = trainer.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, weight_decay=0.0)
        self.batches = list(trainer.get_train_dataloader())

    def step(self, number: int) -> float:
        self.optimizer.zero_grad()
        with self.trainer.accelerator.autocast():
            loss = self.trainer.compute_loss(self.model, dict(self.batches[number]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return float(loss)

    def reference_pass(self, number: int) -> None:
        """The reference pass over a batch, if it is computed once before the first step."""
        if getattr(self.trainer, "precompute_ref_logps", False):
            self.trainer.compute_ref_log_probs(self.model, dict(self.batches[number]))


class StepCost(NamedTuple):
    """The loss and CPU seconds of a step, with its share of the reference pass."""

    loss: float
    seconds: float


def compare(
    name: str, sides: dict[str, Side], rounds: int, peaks: dict[str, float]
) -> dict[str, float]:
    """{name: ratio of plain TRL to another side}. Each round is one step of each side; the
    operations of a step are counted before the first round."""
    counts = {side: count_step(one) for side, one in sides.items()}
    spent: dict[str, list[StepCost]] = {side: [] for side in sides}
    for number in range(1, rounds + 1):
        for side, one in sides.items():
            spent[side].append(time_step(one, number))
    print(f"\n{name}: batch {sides['trl'].batches[0]['input_ids'].shape[0]} rows of SmolLM2-135M")
    ratios = {}
    for side, rows in spent.items():
        seconds = statistics.median(row.seconds for row in rows)
        line = f"  {side:<5} {counts[side] / 1e9:7,.0f} GFLOP  {seconds:6.2f} s of CPU a step"
        precision = "bf16" if side == "bf16" else "fp32"
        line += f"  {counts[side] / seconds / peaks[precision]:4.0%} of the peak in {precision}"
        if side != "trl":
            pairs = list(zip(spent["trl"], rows, strict=True))
            gaps = [abs(theirs.loss - ours.loss) for theirs, ours in pairs]
            apart, how = (
                (statistics.mean(gaps), "on average") if side == "bf16" else (max(gaps), "at most")
            )
            ratio = statistics.median(theirs.seconds / ours.seconds for theirs, ours in pairs)
            ratios[f"{name} CPU time, {side}"] = ratio
            if side == "fp32":
                ratios[f"{name} operations"] = counts["trl"] / counts[side]
            line += f"  ratio {ratio:.2f}; losses apart by {apart:.1e} {how}"
            assert apart < (DRIFT if side == "bf16" else SAME), f"{name}: another loss ({apart})"
        print(line)
    return ratios


def count_step(one: Side) -> float:
    return (
        count_operations(lambda: one.step(0))
        + count_operations(lambda: one.reference_pass(0)) / EPOCHS
    )


def time_step(one: Side, number: int) -> StepCost:
    began = time.process_time()
    one.reference_pass(number)
    share = (time.process_time() - began) / EPOCHS
    began = time.process_time()
    loss = one.step(number)
    return StepCost(loss, time.process_time() - began + share)


def peak_flops(dtype: torch.dtype, size: int = 2048) -> float:
    """Operations per second of a square matrix product, the best of ten."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        a @ b
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best


def dpo(folder: str, rounds: int, plain: bool, bf16: bool = False) -> Any:
    from trl import DPOConfig, DPOTrainer

    from quip.training.trl_trainers import PackedDpoTrainer

    one = student.load(BASE)
    torch.set_num_threads(1)
    return (DPOTrainer if plain else PackedDpoTrainer)(
        model=one.model,
        ref_model=student.load(BASE).model if plain else None,
        args=DPOConfig(
            **shared_settings(folder, DPO_BATCH, bf16), precompute_ref_log_probs=not plain
        ),
        train_dataset=Dataset.from_list(trl_rows(gold_preferences((rounds + 1) * DPO_BATCH))),
        processing_class=one.tokenizer,
    )


def sft(folder: str, rounds: int, plain: bool, bf16: bool = False) -> Any:
    from trl import SFTConfig, SFTTrainer

    from quip.training.trl_trainers import PackedSftTrainer

    one = student.load(BASE)
    torch.set_num_threads(1)
    rows = [
        TrainingPair(input=p.input, literal=p.literal, paraphrase=p.chosen)
        for p in gold_preferences((rounds + 1) * SFT_BATCH)
    ]
    return (SFTTrainer if plain else PackedSftTrainer)(
        model=one.model,
        args=SFTConfig(**shared_settings(folder, SFT_BATCH, bf16), completion_only_loss=True),
        train_dataset=Dataset.from_list(prompt_completion(rows)),
        processing_class=one.tokenizer,
    )


def shared_settings(folder: str, batch_size: int, bf16: bool) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "max_length": 128,
        "seed": 1,
        "data_seed": 1,
        "use_cpu": True,
        "bf16": bf16,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "report_to": "none",
    }


def gold_preferences(count: int) -> list[Preference]:
    rows = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()[:count]]
    return [
        Preference(
            input=str(number),
            literal=row["literal"],
            chosen=row["better"],
            rejected=row["worse"],
            confidence=0.9,
        )
        for number, row in enumerate(rows)
    ]


if __name__ == "__main__":
    main()
