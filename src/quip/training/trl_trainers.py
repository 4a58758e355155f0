"""TRL's trainers, computing less (see `quip.models.packing`) and, in several processes, the same
steps as in one. What they minimise, log and save is TRL's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import Trainer
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import DPOTrainer, SFTTrainer

from quip.models.packing import economise
from quip.training import distributed


class Shares(BatchRebalanceSampler):  # type: ignore[misc]
    """A process's rows of each batch, in the order of a single process.

    The last batch of an epoch, when it is smaller, is every process's as a whole: the mean of equal
    gradients is that gradient, whereas accelerate would fill it up with rows of the first batch.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        super().__init__(
            [0] * rows, batch_size, dp_size=1, grad_accum=1, seed=seed, drop_last=False
        )

    def _yield_global_batch(self, batch: list[int]) -> Iterator[list[int]]:
        whole = len(batch) < self.effective_batch_size
        yield batch if whole else list(distributed.mine(batch))


class Shared(Trainer):  # type: ignore[misc]
    """The sampler of a trainer that is one of several."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if distributed.size() == 1:
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.per_device_train_batch_size * distributed.size()
        return Shares(len(rows), batch, self.args.data_seed or self.args.seed)


class Sft(Shared, SFTTrainer):
    """Supervised training on packed rows."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        economise(bare(self.model))


class Dpo(Shared, DPOTrainer):
    """DPO on packed rows; a pair's two texts share their prompt. The reference is the model as it
    comes in (`quip.training.reference_model`): asked once, while the trainer is made, and in the
    same way."""

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """TRL hands them on in a file of the first process's temporary folder."""
        economise(bare(self.model))
        places = distributed.even(len(dataset))
        found: list[tuple[float, float]] = []
        for start in range(0, len(places), batch_size):
            rows = [dataset[i] for i in places[start : start + batch_size]]
            batch = self._prepare_inputs(self.data_collator(rows))
            chosen, rejected = self.compute_ref_log_probs(self.model, batch)
            found += zip(chosen.tolist(), rejected.tolist(), strict=True)
        found = distributed.gathered(found)[: len(dataset)]
        dataset = dataset.add_column("ref_chosen_logps", [chosen for chosen, _ in found])
        return dataset.add_column("ref_rejected_logps", [rejected for _, rejected in found])


def bare(model: Any) -> Any:
    """The model under its adapters: TRL calls its forward, whichever are on."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
