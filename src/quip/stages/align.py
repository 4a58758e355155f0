"""align: learn from the critic's preferences. One arm a run; this far `dpo`.

DPO (Rafailov et al. 2023, equation 7; the paper's strongest single objective) by TRL's DPOTrainer,
from the warm start and against it as the frozen reference.

    python -m quip.stages.align --arm dpo --wanted data/roles/arms/dpo.json \
        --start models/sft --preferences data/preferences.jsonl --model models/dpo \
        --curve data/curves/dpo.csv --run data/runs/dpo.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quip import stage
from quip.params import Section, load
from quip.records import Preference, read_rows
from quip.unwanted import leave_note, unwanted


class Dpo(Section):
    """Section `dpo`."""

    beta: float
    loss_type: list[str]
    loss_weights: list[float]
    label_smoothing: float


def main(argv: Sequence[str] | None = None) -> None:
    names = ("arm", "wanted", "start", "preferences", "model", "curve", "run")
    args = stage.arguments(__doc__, argv, *names)
    if unwanted(args.wanted):
        return leave_note(args.arm, args.model, args.curve, args.run)
    from quip import training

    class Params(training.Training):
        pass

    params, dpo = load("align", Params), load("dpo", Dpo)
    training.train(
        f"align@{args.arm}",
        lambda student, rows, shared: dpo_trainer(student, rows, shared, params.lora, dpo),
        params,
        args.start,
        {"preferences": Path(args.preferences)},
        read_rows(args.preferences, Preference),
        Path(args.model),
        Path(args.curve),
        Path(args.run),
        {"beta": dpo.beta, "loss": "+".join(dpo.loss_type), "base": args.start},
    )


def dpo_trainer(
    student: Any, rows: Sequence[Preference], shared: dict[str, Any], lora: Any, dpo: Dpo
) -> Any:
    """TRL's DPOTrainer; the reference is the student as it came in, its log-probabilities
    computed once."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from quip.student import completion, prompt
    from quip.training import peft_config

    data = [
        {
            "prompt": prompt(row.literal),
            "chosen": completion(row.chosen),
            "rejected": completion(row.rejected),
        }
        for row in rows
    ]
    return DPOTrainer(
        model=student.model,
        args=DPOConfig(
            **shared,
            beta=dpo.beta,
            loss_type=dpo.loss_type,
            loss_weights=dpo.loss_weights,
            label_smoothing=dpo.label_smoothing,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=student.tokenizer,
        peft_config=peft_config(lora),
    )


if __name__ == "__main__":
    stage.run(main)
