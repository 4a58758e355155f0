"""Call costs: calls, tokens and money per stage and model, from the ledgers in data/metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KEYS = (
    *("calls", "stored", "failed", "refused", "retries"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "money", "paid"),
)


def cost_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for every ledger in `metrics`, {stage: document}. `stored` counts replies from the
    call store, `cached_tokens` the tokens in the provider's cache; `money` is the price of all
    replies, `paid` the price of those that the run asked for itself."""
    return [
        {
            "stage": stage,
            "model": ledger.get("model", ""),
            **{key: ledger.get(key, 0) for key in KEYS},
        }
        for stage, found in metrics.items()
        for ledger in find_ledgers(found)
    ]


def find_ledgers(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every nested mapping with the key `calls`."""
    if isinstance(value, Mapping):
        if "calls" in value:
            yield value
        for part in value.values():
            yield from find_ledgers(part)
