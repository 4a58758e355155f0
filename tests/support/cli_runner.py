"""The command `quip` in this process, and a params.yaml for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from quip.cli.main import app
from repository import SHIPPED_PARAMS


def quip(*words: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=typed)


def shipped_params() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(SHIPPED_PARAMS.read_text(encoding="utf-8"))
    return found


def write_params(change: Callable[[dict[str, Any]], Any] = lambda sections: None) -> None:
    """The shipped params.yaml with a change."""
    sections = shipped_params()
    change(sections)
    Path("params.yaml").write_text(yaml.safe_dump(sections), encoding="utf-8")


def hosted(sections: dict[str, Any]) -> None:
    sections["endpoints"]["hosted"] = {
        **{"base_url": "https://example.org/v1", "model": "m", "concurrency": 10},
        **{"price_in": 2.0, "price_out": 8.0},
    }
    sections["teacher"]["endpoint"] = "hosted"
