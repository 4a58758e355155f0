"""Floating-point operations of a call: exact and the same on every machine.

PyTorch's counter omits the CPU attention kernel and in-place matrix products, both of which TRL and
transformers use; this module counts them by the counter's own rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two matrix products of 2 b h s t d each, for shapes (b, h, s, d) and (b, h, t, d)."""
    (b, h, s, d), t = query, key[2]
    return 4 * b * h * s * t * d


def attention_backward(_: Any, query: Any, key: Any, *__: Any, **___: Any) -> int:
    """Five matrix products of the same size: the scores once more, and four gradients."""
    (b, h, s, d), t = query, key[2]
    return 10 * b * h * s * t * d


def product_in_place(_: Any, a: Any, b: Any, **__: Any) -> int:
    return int(2 * a[0] * a[1] * b[1])


aten = torch.ops.aten
MISSING = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    aten.addmm_: product_in_place,
}


def count_operations(call: Callable[[], object]) -> int:
    """Floating-point operations of `call()`."""
    with FlopCounterMode(display=False, custom_mapping=MISSING) as counter:
        call()
    return int(counter.get_total_flops())
