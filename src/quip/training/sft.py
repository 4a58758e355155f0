"""Maximum likelihood on (literal, paraphrase) pairs: by TRL's SFTTrainer for a causal student, by
`quip.training.loop` for an encoder-decoder. The loss is on the paraphrase only.

Used by `sft` (from the base model) and by the baselines `ft` (more imitation) and `sd`
(self-distillation on the critic's favourites), which start from the warm start.
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
from quip.training.loop import Figures, Mean, Objective, by_loop
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
        chosen = trl(held_out, params) if student.family == "causal" else loop(held_out)
        return chosen(student, rows, job)

    trainer.train(name, fit, params, base, data, pairs, out, curve, run_file, {"base": base})


def trl(held_out: Pairs, params: Imitation) -> trainer.Fit:
    def make_trainer(student: Student, rows: Pairs, shared: dict[str, Any]) -> Any:
        from datasets import Dataset
        from trl import SFTConfig

        from quip.training.trl_trainers import Sft

        return Sft(
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

    return trainer.by_trl(make_trainer)


def prompt_completion(pairs: Pairs) -> list[dict[str, str]]:
    return [{"prompt": prompt(p.literal), "completion": completion(p.paraphrase)} for p in pairs]


def loop(held_out: Pairs) -> trainer.Fit:
    def objective_of(student: Student, rows: Pairs, params: trainer.Training) -> Objective:
        def loss(batch: Pairs) -> tuple[list[Mean], Figures]:
            logits, labels = forward(student, as_texts(batch), params.max_length)
            scored = labels != IGNORED
            right = (logits.argmax(-1) == labels)[scored].float().mean()
            tokens = int(scored.sum())
            entropy = Mean(cross_entropy(logits, labels), tokens)
            return [entropy], {"mean_token_accuracy": Mean(right.item(), tokens)}

        def evaluated() -> dict[str, float]:
            size = params.batch_size
            parts = [held_out[i : i + size] for i in range(0, len(held_out), size)]
            total = sum(loss(part)[0][0].value.item() * len(part) for part in parts)
            return {"eval_loss": total / len(held_out)}

        return Objective(rows, loss, dropout=True, held_out=evaluated if held_out else None)

    return by_loop(objective_of)


def as_texts(pairs: Pairs) -> Texts:
    return Texts([p.literal for p in pairs], range(len(pairs)), [p.paraphrase for p in pairs])
