"""Costs of calls: prices of an endpoint and the ledger of one stage.

Prices come from params.yaml. Prices that are missing there come from the catalogue of models that
is part of MLflow, which is read as a file, since importing MLflow takes seconds.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from quip.llm.endpoints import Endpoint
from quip.llm.requests.chat import Request, Usage

LETTERS_PER_TOKEN = 4.0
MOST_TOKENS_PER_LETTER = 0.5
"""Used for the upper limit of a call's cost, before it is made."""
BATCH_SHARE = 0.5
"""Price of a batch as a share of the online price, when the catalogue has none."""
COUNTS = (
    *("calls", "stored", "failed", "refused", "retries"),
    *("prompt_tokens", "cached_tokens", "completion_tokens"),
)


class Prices(NamedTuple):
    """Money per million tokens: of the prompt, of its cached part, of the completion."""

    prompt: float = 0.0
    cached: float = 0.0
    completion: float = 0.0

    def of(self, usage: Usage) -> float:
        fresh = usage.prompt - usage.cached
        parts = (fresh, usage.cached, usage.completion)
        return sum(n * price for n, price in zip(parts, self, strict=True)) / 1e6


def prices(settings: Endpoint, batch: bool = False) -> Prices:
    """The endpoint's prices from params.yaml, else from the catalogue, else 0."""
    found = catalogue(settings.base_url, settings.model)
    tier = found.get("service_tiers", {}).get("batch", {}) if batch else {}
    share = BATCH_SHARE if batch else 1.0

    def price(own: float | None, name: str, default: float) -> float:
        key = f"{name}_per_million_tokens"
        if own is not None:
            return own * share
        return float(tier[key]) if key in tier else float(found.get(key, default)) * share

    read = price(settings.price_in, "input", 0.0)
    own = settings.price_in is not None and settings.price_cached is None
    cached = read if own else price(settings.price_cached, "cache_read", read / share)
    return Prices(read, cached, price(settings.price_out, "output", 0.0))


@cache
def catalogue(base_url: str, model: str) -> dict[str, Any]:
    """MLflow's prices of `model` at the provider that the host of `base_url` names, or {}."""
    host = (urlsplit(base_url).hostname or "").split(".")
    spec = find_spec("mlflow")
    if len(host) < 2 or spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(next(iter(spec.submodule_search_locations)), "utils", "model_catalog")
    file = folder / f"{host[-2]}.json"
    if not file.is_file():
        return {}
    models = json.loads(file.read_text(encoding="utf-8")).get("models", {})
    return dict(models.get(model, {}).get("pricing") or {})


@dataclass
class Ledger:
    """Counts and costs of one stage. `money` is the price of all its rows, stored ones included;
    `paid` is what this process paid, rejected replies included."""

    settings: Endpoint
    counts: Counter[str] = field(default_factory=Counter)
    paid: float = 0.0
    money: float = 0.0

    def row(self, usage: Usage, stored: bool) -> None:
        self.counts.update(
            calls=1,
            stored=int(stored),
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            completion_tokens=usage.completion,
        )
        self.money += prices(self.settings, self.settings.batched).of(usage)

    def cost(self, request: Request, usage: Usage, text: str = "", batch: bool = False) -> float:
        """The cost of a reply; estimated from its letters when the server reports no tokens."""
        if usage == Usage():
            read, written = request.letters() / LETTERS_PER_TOKEN, len(text) / LETTERS_PER_TOKEN
            usage = Usage(round(read), 0, round(written))
        return prices(self.settings, batch).of(usage)

    def most(self, request: Request, batch: bool = False) -> float:
        """The most that `request` can cost."""
        read = round(request.letters() * MOST_TOKENS_PER_LETTER) + 16
        return prices(self.settings, batch).of(Usage(read, 0, request.max_tokens))

    def summary(self) -> dict[str, float | str]:
        counts = {key: self.counts[key] for key in COUNTS}
        money = {"money": round(self.money, 6), "paid": round(self.paid, 6)}
        return {"model": self.settings.model, **counts, **money}
