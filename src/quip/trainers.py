"""TRL's trainers, computing less: see `quip.packing`. What they minimise, log and save is TRL's."""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, SFTTrainer

from quip.packing import economise


class Sft(SFTTrainer):
    """Supervised training on packed rows."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        economise(bare(self.model))


class Dpo(DPOTrainer):
    """DPO on packed rows; a pair's two texts share their prompt. The reference's log-probabilities
    are computed once, while the trainer is made, and in the same way."""

    def _precompute_ref_logps(self, *arguments: Any) -> Any:
        for model in (self.model, self.ref_model):
            if model is not None:
                economise(bare(model))
        return super()._precompute_ref_logps(*arguments)


def bare(model: Any) -> Any:
    """The model under its adapters: TRL calls its forward, whichever are on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
