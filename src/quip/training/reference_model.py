"""Reference model: its weights are loaded into the student for a while, so that DPO needs only one
model in memory.

DPO evaluates its reference model once, before the first step. From the second round of feedback on
the reference model is another model than the start model. Its weights are read into the student,
and the student's own weights are read back afterwards.
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
def reference_weights(other: str | Path, model: Any, own: str | Path) -> Iterator[None]:
    """A context in which `model` has the weights of folder `other`.

    Afterwards it has those of folder `own` again, from which it was loaded. Adapters (PEFT) keep
    their weights, also when they are added inside the context.

    Raises WeightsError when the weights of `other` do not fit; `model` then has those of `own`.
    """
    parameters = {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model.named_parameters()
        if ".lora_" not in name
    }
    try:
        copy_weights(parameters, other)
        yield
    finally:
        copy_weights(parameters, own)


@torch.no_grad()
def copy_weights(parameters: Mapping[str, Tensor], folder: str | Path) -> None:
    """Copy the weights of `folder` into the parameters of the same names.

    Raises WeightsError when a parameter has no weight of its name and shape.
    """
    missing = set(parameters)
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            for name in missing & set(weights.keys()):
                found = weights.get_tensor(name)
                if found.shape != parameters[name].shape:
                    break
                parameters[name].copy_(found)
                missing.discard(name)
    if missing:
        raise WeightsError(
            f"{folder}: no weights that fit '{min(missing)}' of the student. The reference must be "
            "a student of the same base (sft.base); run `dvc repro` to train it anew."
        )
