"""TRL trainers with packed rows (`quip.models.packing`) and sharded batches.

Packing makes them compute less. Sharding makes several processes take the same steps as one. What
they minimise, log and save is unchanged TRL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from transformers import Trainer
from transformers.trainer_pt_utils import BatchRebalanceSampler
from trl import DPOTrainer, SFTTrainer

from quip.models.packing import enable_packing
from quip.training import distributed


class ShardSampler(BatchRebalanceSampler):  # type: ignore[misc]
    """Batch sampler: this process's shard of each batch, in the row order of a single process.

    Every process takes the whole of a smaller last batch. The mean of equal gradients is that
    gradient, whereas accelerate would fill the batch up with rows of the first one.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        super().__init__(
            [0] * rows, batch_size, dp_size=1, grad_accum=1, seed=seed, drop_last=False
        )

    def _yield_global_batch(self, batch: list[int]) -> Iterator[list[int]]:
        whole = len(batch) < self.effective_batch_size
        yield batch if whole else list(distributed.local_shard(batch))


class ShardedTrainer(Trainer):  # type: ignore[misc]
    """A trainer that samples its shard of each batch when it is one of several processes."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if distributed.world_size() == 1:
            return super()._get_train_sampler(train_dataset)
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        batch = self.args.per_device_train_batch_size * distributed.world_size()
        return ShardSampler(len(rows), batch, self.args.data_seed or self.args.seed)


class PackedSftTrainer(ShardedTrainer, SFTTrainer):
    """Supervised training on packed rows."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        enable_packing(base_model(self.model))


class PackedDpoTrainer(ShardedTrainer, DPOTrainer):
    """DPO on packed rows; a pair's two texts share their prompt.

    The reference model is the model in its present state (`quip.training.reference_model`). It is
    evaluated once, on packed rows, while the trainer is made.
    """

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Replaces TRL's own, which passes them on in a file of the first process's temporary
        folder."""
        enable_packing(base_model(self.model))
        places = distributed.even_shard(len(dataset))
        found: list[tuple[float, float]] = []
        for start in range(0, len(places), batch_size):
            rows = [dataset[i] for i in places[start : start + batch_size]]
            batch = self._prepare_inputs(self.data_collator(rows))
            chosen, rejected = self.compute_ref_log_probs(self.model, batch)
            found += zip(chosen.tolist(), rejected.tolist(), strict=True)
        found = distributed.gather(found)[: len(dataset)]
        dataset = dataset.add_column("ref_chosen_logps", [chosen for chosen, _ in found])
        return dataset.add_column("ref_rejected_logps", [rejected for _, rejected in found])


def base_model(model: Any) -> Any:
    """The model below its adapters, whose forward TRL calls with any adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
