"""What each stage asked of each large model, gathered from the ledgers in data/metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

KEYS = (
    *("calls", "stored", "failed", "refused", "retries"),
    *("prompt_tokens", "cached_tokens", "completion_tokens", "money", "paid"),
)


def costs(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for every ledger in the metrics, {stage: document}. `stored` are replies from the
    call store, `cached_tokens` those the provider read from its cache; `money` is what the rows
    stand for, `paid` what that run paid."""
    return [
        {
            "stage": stage,
            "model": ledger.get("model", ""),
            **{key: ledger.get(key, 0) for key in KEYS},
        }
        for stage, found in metrics.items()
        for ledger in ledgers(found)
    ]


def ledgers(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping that counts calls, however deep it stands."""
    if isinstance(value, Mapping):
        if "calls" in value:
            yield value
        for part in value.values():
            yield from ledgers(part)
