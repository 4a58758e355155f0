"""The champion of the registry, and how it became that.

MLflow keeps no history of aliases, so each promotion leaves a tag on the registered model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from quip.tracking import Store, clean, now_ms

PREFIX = "promotion."
"""Tags of the registered model: `promotion.<milliseconds since 1970>`, one a promotion."""


def crown(
    store: Store,
    name: str,
    number: str,
    deposed: str | None,
    why: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Move the aliases (a deposed champion becomes challenger) and keep what was decided."""
    entry = {"version": number, "over": deposed, "why": why, **(details or {})}
    client = store.client
    client.set_registered_model_tag(name, f"{PREFIX}{now_ms()}", clean(json.dumps(entry)))
    client.set_model_version_tag(name, number, "promotion", clean(why))
    client.set_registered_model_alias(name, "champion", number)
    if deposed:
        client.set_registered_model_alias(name, "challenger", deposed)


def history(store: Store, name: str) -> list[tuple[int, dict[str, Any]]]:
    """(milliseconds since 1970, what was decided) of every promotion, oldest first."""
    for model in store.client.search_registered_models(f"name = '{name}'"):
        tags = {k.removeprefix(PREFIX): v for k, v in model.tags.items() if k.startswith(PREFIX)}
        return sorted((int(at), json.loads(value)) for at, value in tags.items())
    return []


def told(at: int, entry: Mapping[str, Any]) -> str:
    """One promotion as a line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1000))
    over = f" over version {entry['over']}" if entry["over"] else ""
    return f"{when}  version {entry['version']}{over}: {entry['why']}"
