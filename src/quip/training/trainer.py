"""What the training stages share: the run, the live curve, checkpoints, the saved model.

TRL trains causal students, by supervised learning (SFTTrainer) and by DPO (DPOTrainer, the loss of
Rafailov et al. 2023, equation 7). What TRL cannot do, `quip.training.loop` trains.
"""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import TrainerCallback, set_seed

from quip.core.jsonl import atomic, write_json
from quip.core.params import Section
from quip.models.hardware import Precision, use_bf16
from quip.models.likelihood import Texts, forward
from quip.models.student import (
    Family,
    Lora,
    Student,
    check_causal,
    check_length,
    digest,
    load,
    remove,
    save,
)
from quip.runtime import paths
from quip.tracking import runs
from quip.training import distributed
from quip.training.losses import sequence_logps

COLUMNS = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "learning_rate": "learning_rate",
    "mean_token_accuracy": "token_accuracy",
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "logps/chosen": "logp_chosen",
    "logps/rejected": "logp_rejected",
    "ranking_loss": "ranking_loss",
    "cross_entropy": "cross_entropy",
}
"""Names of the trainers -> columns of the curve."""


class Training(Section):
    """Settings every training stage has."""

    epochs: float
    batch_size: int
    learning_rate: float
    warmup_ratio: float
    max_length: int
    seed: int
    precision: Precision
    lora: Lora | None


class Job(NamedTuple):
    """What a training has to do its work with: its checkpoints' folder and where curves go."""

    params: Training
    scratch: Path
    run: runs.Run


Fit = Callable[[Student, Sequence[Any], Job], tuple[Any, list[dict[str, float]]]]
"""(student, rows, job) -> the trained model and its curve, one row a step."""


class Curve(TrainerCallback):
    """Collects the trainer's log lines and passes each on to the MLflow run as it comes."""

    def __init__(self, run: runs.Run) -> None:
        self.run, self.rows = run, []  # type: ignore[var-annotated]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        row = {COLUMNS[key]: float(value) for key, value in (logs or {}).items() if key in COLUMNS}
        if row:
            self.run.log(state.global_step, row)
            self.rows.append({"step": state.global_step, **row})


def arguments(params: Training, scratch: Path, rows: int) -> dict[str, Any]:
    """The transformers.TrainingArguments that SFTConfig and DPOConfig have in common."""
    cpu = not torch.cuda.is_available()
    share = distributed.share_of_batch(params.batch_size)
    steps = max(1, round(rows / params.batch_size * params.epochs))
    return {
        "output_dir": str(scratch),
        "num_train_epochs": params.epochs,
        "per_device_train_batch_size": share,
        "per_device_eval_batch_size": share,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(steps * params.warmup_ratio),
        "max_length": params.max_length,
        "seed": params.seed,
        "data_seed": params.seed,
        "bf16": use_bf16(params.precision),
        "use_cpu": cpu,
        "gradient_checkpointing": False,
        "logging_steps": max(1, steps // 40),
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": None,
        "dataloader_pin_memory": not cpu,
        **distributed.sharded(),
    }


def peft_config(lora: Lora | None, family: Family = "causal") -> Any:
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM" if family == "causal" else "SEQ_2_SEQ_LM",
    )


def by_trl(make_trainer: Any) -> Fit:
    """Train by the TRL trainer that `make_trainer(student, rows, arguments)` builds."""

    def fit(student: Student, rows: Sequence[Any], job: Job) -> tuple[Any, list[dict[str, float]]]:
        check_causal(student)
        trainer = make_trainer(student, rows, arguments(job.params, job.scratch, len(rows)))
        trainer.add_callback(Curve(job.run))
        trainer.train(resume_from_checkpoint=last_checkpoint(job.scratch))
        return whole(trainer), merged(trainer.state.log_history)

    return fit


def whole(trainer: Any) -> Any:
    """The trained model, put together again where FSDP had spread it over the processes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.is_fsdp_enabled:
        return model
    weights = trainer.accelerator.get_state_dict(trainer.model)
    again = type(model)(model.config)
    if distributed.first():
        again.load_state_dict(weights)
    return again


def train(
    name: str,
    fit: Fit,
    params: Training,
    base: str,
    data: dict[str, Path],
    rows: Sequence[Any],
    out: Path,
    curve: Path,
    run_file: Path,
    extra: dict[str, Any],
) -> None:
    """Train `base` on `rows` by `fit`, resuming after a kill; write model, curve and run.

    `extra` are the settings to log beside those of `params`. `data` and `extra` with `params` and
    `base` decide which checkpoints are this training's own.
    """
    started = time.time()
    params = params.model_copy(update={"precision": distributed.precision(params.precision)})
    scratch = scratch_folder(name, params, extra, base, data)
    set_seed(params.seed)
    student = load(base)
    check_length(student, params.max_length, f"{name.split('@')[0]}.max_length")
    params = params.model_copy(update={"precision": settled(student, rows, params)})
    student.model.train()
    settings = {**params.model_dump(exclude={"lora"}), **extra, "rows": len(rows)}
    settings["lora_r"] = params.lora.r if params.lora else 0
    tracked = runs.run(name, settings, data) if distributed.first() else nullcontext(quiet())
    with tracked as run:
        model, history = fit(student, rows, Job(params, scratch, run))
        distributed.leave()
        if not distributed.first():
            return
        save(Student(model, student.tokenizer), out)
        write_curve(curve, history)
        run_id = run.id
    write_json(
        run_file,
        {
            "run_id": run_id,
            "stage": name,
            "model_sha256": digest(out),
            "seconds": round(time.time() - started, 1),
            "params": settings,
        },
    )
    if scratch.exists():
        remove(scratch)


DRIFT = 0.05
"""The mean change of a text's log-probability a token by which bfloat16 counts as too coarse."""


def settled(student: Student, rows: Sequence[Any], params: Training) -> Precision:
    """The precision to train in: where it is left to us and the processor has bfloat16, bfloat16,
    unless it changes what this student thinks of the first rows too much."""
    if params.precision != "auto" or not use_bf16("auto"):
        return params.precision
    found = drift(student, first_texts(rows[:8]), params.max_length)
    if found > DRIFT:
        print(f"train: bfloat16 is {found:.3f} nats a token off for this student; using float32.")
        return "fp32"
    return "bf16"


@torch.no_grad()
def drift(student: Student, texts: Texts, max_length: int) -> float:
    """How far bfloat16 moves the log-probability a token of a text, on average; in nats."""
    each = []
    for bf16 in (False, True):
        with torch.autocast(student.model.device.type, torch.bfloat16, enabled=bf16):
            logps, tokens = sequence_logps(*forward(student, texts, max_length))
        each.append(logps / tokens.clamp_min(1))
    return (each[1] - each[0]).abs().mean().item()


def first_texts(rows: Sequence[Any]) -> Texts:
    """The literals of training rows of any kind and a text of each to learn from."""
    literals, texts = [], []
    for row in rows:
        row = getattr(row, "ranking", row)
        literals.append(row.literal)
        texts.append(
            row.texts[0]
            if hasattr(row, "texts")
            else getattr(row, "chosen", None) or row.paraphrase
        )
    return Texts(literals, range(len(texts)), texts)


def quiet() -> runs.Run:
    """The run of a process that is not the first: it reaches no server."""
    return runs.Run()


def scratch_folder(
    name: str, params: Training, extra: dict[str, Any], base: str, data: dict[str, Path]
) -> Path:
    """Where checkpoints go: local, outside DVC's outputs, named by all that determines them."""
    total = hashlib.sha256(json.dumps([params.model_dump(), extra, str(base)]).encode())
    for path in data.values():
        total.update(Path(path).read_bytes())
    if Path(base).is_dir():
        total.update(digest(base).encode())
    return paths.state("checkpoints", f"{name}-{total.hexdigest()[:16]}")


def last_checkpoint(scratch: Path) -> str | None:
    """The newest whole checkpoint. One that a kill cut off lacks the trainer's state, which is
    written last; starting from it would fail again and again."""
    whole = [path.parent for path in scratch.glob("checkpoint-*/trainer_state.json")]
    if not whole:
        return None
    newest = max(whole, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
    print(f"going on from {newest.name}")
    return str(newest)


def merged(history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The trainer's log as one row a step with our column names (also across a resume)."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(int(entry["step"]), {"step": int(entry["step"])})
        row.update({COLUMNS[k]: float(v) for k, v in entry.items() if k in COLUMNS})
    return [row for row in rows.values() if len(row) > 1]


def write_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    names = [name for name in COLUMNS.values() if any(name in row for row in rows)]
    with atomic(path) as handle:
        writer = csv.DictWriter(handle, ["step", *names], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 6) for k, v in row.items()})
