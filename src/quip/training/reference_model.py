"""A model that is another one for a while: what a second model is needed for, with one in memory.

DPO asks its reference once, before the first step. Where the reference is another model than the
start (from the second round of feedback on), its weights are read into the student, and the
student's own are read back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from quip.runtime.errors import WeightsError


@contextmanager
def weights_of(other: str | Path, model: Any, own: str | Path) -> Iterator[None]:
    """Within, `model` has the weights in folder `other`; afterwards those in folder `own`, from
    which it was loaded. Adapters (PEFT), around it now or by the end, are left alone.

    Raises WeightsError, with the weights of `own` in place, when `other` has weights of another
    make.
    """
    held = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model.named_parameters()
        if ".lora_" not in name
    }
    try:
        fill(held, other)
        yield
    finally:
        fill(held, own)


@torch.no_grad()
def fill(held: Mapping[str, Tensor], folder: str | Path) -> None:
    """Copy a folder's weights over the tensors of the same names. Raises WeightsError."""
    missing = set(held)
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in missing & set(weights.keys()):
                found = weights.get_tensor(name)
                if found.shape != held[name].shape:
                    break
                held[name].copy_(found)
                missing.discard(name)
    if missing:
        raise WeightsError(
            f"{folder}: no weights that fit '{min(missing)}' of the student. The reference must be "
            "a student of the same base (sft.base); run `dvc repro` to train it anew."
        )
