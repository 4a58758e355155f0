"""Supervised fine-tuning: maximum likelihood on (literal, paraphrase) pairs.

TRL's SFTTrainer trains a causal student, `quip.training.loop` an encoder-decoder. The loss is on
the paraphrase only. The stage `sft` starts from the base model. The baselines `ft` (more imitation)
and `sd` (self-distillation on the critic's favourites) start from the warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quip.core.records import TrainingPair
from quip.models.likelihood import Texts, forward
from quip.models.packing import IGNORED
from quip.models.student import Student, completion, prompt
from quip.training import trainer
from quip.training.loop import Mean, Metrics, Objective, loop_fit
from quip.training.losses import cross_entropy

Pairs = Sequence[TrainingPair]


class Imitation(trainer.Training):
    """Settings of supervised training."""


def imitate(
    name: str,
    params: Imitation,
    *,
    base: str,
    pairs: Pairs,
    held_out: Pairs,
    data: dict[str, Path],
    out: Path,
    curve: Path,
    run_file: Path,
) -> None:
    """Train `base` on `pairs`, with the loss on `held_out` each epoch; save to `out`."""

    def fit(student: Student, rows: Pairs, job: trainer.Job) -> Any:
        causal = student.family == "causal"
        family_fit = make_trl_fit(held_out, params) if causal else make_loop_fit(held_out)
        return family_fit(student, rows, job)

    trainer.train(name, fit, params, base, data, pairs, out, curve, run_file, {"base": base})


def make_trl_fit(held_out: Pairs, params: Imitation) -> trainer.Fit:
    """A Fit by TRL's SFTTrainer, for a causal student."""

    def make_trainer(student: Student, rows: Pairs, shared: dict[str, Any]) -> Any:
        from datasets import Dataset
        from trl import SFTConfig

        from quip.training.trl_trainers import PackedSftTrainer

        return PackedSftTrainer(
            model=student.model,
            args=SFTConfig(
                **shared,
                completion_only_loss=True,
                eval_strategy="epoch" if held_out else "no",
            ),
            train_dataset=Dataset.from_list(prompt_completion(rows)),
            eval_dataset=Dataset.from_list(prompt_completion(held_out)) if held_out else None,
            processing_class=student.tokenizer,
            peft_config=trainer.peft_config(params.lora),
        )

    return trainer.trl_fit(make_trainer)


def prompt_completion(pairs: Pairs) -> list[dict[str, str]]:
    """The pairs in TRL's format: prompt, completion."""
    return [{"prompt": prompt(p.literal), "completion": completion(p.paraphrase)} for p in pairs]


def make_loop_fit(held_out: Pairs) -> trainer.Fit:
    """A Fit by quip's own loop, for an encoder-decoder."""

    def make_objective(student: Student, rows: Pairs, params: trainer.Training) -> Objective:
        def loss(batch: Pairs) -> tuple[list[Mean], Metrics]:
            logits, labels = forward(student, as_texts(batch), params.max_length)
            scored = labels != IGNORED
            right = (logits.argmax(-1) == labels)[scored].float().mean()
            tokens = int(scored.sum())
            entropy = Mean(cross_entropy(logits, labels), tokens)
            return [entropy], {"mean_token_accuracy": Mean(right.item(), tokens)}

        def evaluate() -> dict[str, float]:
            size = params.batch_size
            parts = [held_out[i : i + size] for i in range(0, len(held_out), size)]
            total = sum(loss(part)[0][0].value.item() * len(part) for part in parts)
            return {"eval_loss": total / len(held_out)}

        return Objective(rows, loss, dropout=True, held_out=evaluate if held_out else None)

    return loop_fit(make_objective)


def as_texts(pairs: Pairs) -> Texts:
    return Texts([p.literal for p in pairs], range(len(pairs)), [p.paraphrase for p in pairs])
