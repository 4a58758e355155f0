"""How many processors there are, and in which number format a model computes on them."""

from __future__ import annotations

import os
from typing import Literal


def cores() -> int:
    """The processors this process may really use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Precision = Literal["auto", "fp32", "bf16"]


def use_bf16(precision: Precision) -> bool:
    """Whether to compute in bfloat16: as asked, or "auto": where the processor has it.

    Without native support bfloat16 is slower than float32, so it is not guessed.
    """
    if precision != "auto":
        return precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())
