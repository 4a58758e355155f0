"""Hardware: the number of usable cores and the number format a model computes in."""

from __future__ import annotations

import os
from typing import Literal


def cores() -> int:
    """The number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Precision = Literal["auto", "fp32", "bf16"]


def use_bf16(precision: Precision) -> bool:
    """Whether to compute in bfloat16; "auto" uses it where the processor supports it natively.

    Without native support bfloat16 is slower than float32.
    """
    if precision != "auto":
        return precision == "bf16"
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())
