"""Maximum likelihood on (literal, paraphrase) pairs, by TRL's SFTTrainer.

Used by `sft` (from the base model) and by the baselines `ft` (more imitation) and `sd`
(self-distillation on the critic's favourites), which start from the warm start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quip import training
from quip.records import TrainingPair
from quip.student import Student, completion, prompt


class Imitation(training.Training):
    """Settings of supervised training; the loss is on the completion only."""


def imitate(
    name: str,
    params: Imitation,
    *,
    base: str,
    pairs: Sequence[TrainingPair],
    held_out: Sequence[TrainingPair],
    data: dict[str, Path],
    out: Path,
    curve: Path,
    run_file: Path,
) -> None:
    """Train `base` on `pairs`, with the loss on `held_out` each epoch; save to `out`."""

    def make_trainer(student: Student, rows: Sequence[TrainingPair], shared: dict[str, Any]) -> Any:
        from datasets import Dataset
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=student.model,
            args=SFTConfig(
                **shared,
                completion_only_loss=True,
                eval_strategy="epoch" if held_out else "no",
            ),
            train_dataset=Dataset.from_list(prompt_completion(rows)),
            eval_dataset=Dataset.from_list(prompt_completion(held_out)) if held_out else None,
            processing_class=student.tokenizer,
            peft_config=training.peft_config(params.lora),
        )

    training.train(
        name, make_trainer, params, base, data, pairs, out, curve, run_file, {"base": base}
    )


def prompt_completion(pairs: Sequence[TrainingPair]) -> list[dict[str, str]]:
    return [{"prompt": prompt(p.literal), "completion": completion(p.paraphrase)} for p in pairs]
