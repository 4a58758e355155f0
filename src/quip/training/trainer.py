"""Trainer shared by the training stages: MLflow run, live curve, checkpoints, saved model.

TRL trains causal students, by supervised learning (SFTTrainer) and by DPO (DPOTrainer, the loss of
Rafailov et al. 2023, equation 7). `quip.training.loop` trains what TRL cannot.
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
    load,
    remove,
    save,
    weights_digest,
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
"""The trainers' metric names -> columns of the training curve."""


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
    """What a Fit gets beside student and rows: settings, checkpoint folder, MLflow run."""

    params: Training
    scratch: Path
    run: runs.Run


Fit = Callable[[Student, Sequence[Any], Job], tuple[Any, list[dict[str, float]]]]
"""(student, rows, job) -> (trained model, training curve with one row for each logged step)."""


class Curve(TrainerCallback):
    """Training curve: collects the trainer's log lines and sends each to the MLflow run at once."""

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
    share = distributed.local_batch_size(params.batch_size)
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
        **distributed.fsdp_arguments(),
    }


def peft_config(lora: Lora | None, family: Family = "causal") -> Any:
    """PEFT's configuration of the adapters; None without them."""
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


def trl_fit(make_trainer: Any) -> Fit:
    """A Fit by the TRL trainer that `make_trainer(student, rows, arguments)` builds."""

    def fit(student: Student, rows: Sequence[Any], job: Job) -> tuple[Any, list[dict[str, float]]]:
        check_causal(student)
        trainer = make_trainer(student, rows, arguments(job.params, job.scratch, len(rows)))
        trainer.add_callback(Curve(job.run))
        trainer.train(resume_from_checkpoint=last_checkpoint(job.scratch))
        return gather_model(trainer), merge_log(trainer.state.log_history)

    return fit


def gather_model(trainer: Any) -> Any:
    """The trained model; where FSDP sharded it, its weights are gathered in the first process."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.is_fsdp_enabled:
        return model
    weights = trainer.accelerator.get_state_dict(trainer.model)
    gathered = type(model)(model.config)
    if distributed.is_first():
        gathered.load_state_dict(weights)
    return gathered


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

    data   names and paths of the input files, for the run
    extra  settings to log beside those of `params`

    `params`, `extra`, `base` and the bytes of `data` name the checkpoint folder, so a training
    resumes only from checkpoints of its own settings and inputs.
    """
    started = time.time()
    params = params.model_copy(update={"precision": distributed.precision(params.precision)})
    scratch = scratch_folder(name, params, extra, base, data)
    set_seed(params.seed)
    student = load(base)
    check_length(student, params.max_length, f"{name.split('@')[0]}.max_length")
    params = params.model_copy(update={"precision": choose_precision(student, rows, params)})
    student.model.train()
    settings = {**params.model_dump(exclude={"lora"}), **extra, "rows": len(rows)}
    settings["lora_r"] = params.lora.r if params.lora else 0
    tracked = runs.run(name, settings, data) if distributed.is_first() else nullcontext(null_run())
    with tracked as run:
        model, history = fit(student, rows, Job(params, scratch, run))
        distributed.leave()
        if not distributed.is_first():
            return
        save(Student(model, student.tokenizer), out)
        write_curve(curve, history)
        run_id = run.id
    write_json(
        run_file,
        {
            "run_id": run_id,
            "stage": name,
            "model_sha256": weights_digest(out),
            "seconds": round(time.time() - started, 1),
            "params": settings,
        },
    )
    if scratch.exists():
        remove(scratch)


DRIFT = 0.05
"""The largest mean change of log-probability per token, in nats, at which bfloat16 is used."""


def choose_precision(student: Student, rows: Sequence[Any], params: Training) -> Precision:
    """The precision to train in.

    "auto" gives bfloat16 where the processor supports it, unless bfloat16 changes this student's
    log-probabilities of the first rows by more than DRIFT.
    """
    if params.precision != "auto" or not use_bf16("auto"):
        return params.precision
    found = bf16_drift(student, first_texts(rows[:8]), params.max_length)
    if found > DRIFT:
        print(
            f"train: bfloat16 changes log-probabilities by {found:.3f} nats per token for this "
            "student; using float32."
        )
        return "fp32"
    return "bf16"


@torch.no_grad()
def bf16_drift(student: Student, texts: Texts, max_length: int) -> float:
    """The mean change of log-probability per token that bfloat16 causes, in nats."""
    means = []
    for bf16 in (False, True):
        with torch.autocast(student.model.device.type, torch.bfloat16, enabled=bf16):
            logps, tokens = sequence_logps(*forward(student, texts, max_length))
        means.append(logps / tokens.clamp_min(1))
    return (means[1] - means[0]).abs().mean().item()


def first_texts(rows: Sequence[Any]) -> Texts:
    """The literal and one target text of each training row, whatever its type."""
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


def null_run() -> runs.Run:
    """A run that logs nowhere, for every process but the first."""
    return runs.Run()


def scratch_folder(
    name: str, params: Training, extra: dict[str, Any], base: str, data: dict[str, Path]
) -> Path:
    """The checkpoint folder: local, outside DVC's outputs, named by a digest of all inputs."""
    inputs = hashlib.sha256(json.dumps([params.model_dump(), extra, str(base)]).encode())
    for path in data.values():
        inputs.update(Path(path).read_bytes())
    if Path(base).is_dir():
        inputs.update(weights_digest(base).encode())
    return paths.state("checkpoints", f"{name}-{inputs.hexdigest()[:16]}")


def last_checkpoint(scratch: Path) -> str | None:
    """The newest complete checkpoint; None without one.

    The trainer writes its state last, so a checkpoint that a kill cut off lacks it. Resuming from
    that one would fail every time.
    """
    whole = [path.parent for path in scratch.glob("checkpoint-*/trainer_state.json")]
    if not whole:
        return None
    newest = max(whole, key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
    print(f"resuming from {newest.name}")
    return str(newest)


def merge_log(history: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The trainer's log as one row for each step, with the curve's column names, also after a
    resume."""
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        row = rows.setdefault(int(entry["step"]), {"step": int(entry["step"])})
        row.update({COLUMNS[k]: float(v) for k, v in entry.items() if k in COLUMNS})
    return [row for row in rows.values() if len(row) > 1]


def write_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write the training curve as CSV, with the columns that have a value."""
    names = [name for name in COLUMNS.values() if any(name in row for row in rows)]
    with atomic(path) as handle:
        writer = csv.DictWriter(handle, ["step", *names], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: round(v, 6) for k, v in row.items()})
