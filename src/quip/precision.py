"""In which number format a model computes: bfloat16 where the processor has it, else float32."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def use_bf16(precision: Precision) -> bool:
    """Whether to compute in bfloat16: as asked, or "auto": where the processor has it.

    Without native support bfloat16 is slower than float32, so it is not guessed.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported())
