"""Where the time went: the last run of every stage, from the local clock. Pure but for the file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel

from quip.errors import DataError


class Entry(BaseModel):
    """One finished stage: how long it took, and when it ended (seconds since 1970)."""

    stage: str
    seconds: float
    at: int


def read(path: Path) -> list[Entry]:
    """The latest entry of each stage, in the order they ended. A line cut off by a kill is
    skipped. Raises DataError when there is none."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    latest = {entry.stage: entry for entry in parsed(lines)}
    if not latest:
        raise DataError(f"{path}: no stage has finished here yet. Run `make run` or `dvc repro`.")
    return sorted(latest.values(), key=lambda entry: entry.at)


def parsed(lines: Iterable[str]) -> Iterable[Entry]:
    for line in lines:
        try:
            yield Entry.model_validate(json.loads(line))
        except ValueError:
            continue


def table(entries: Iterable[Entry]) -> str:
    """One line a stage: seconds and share of the whole."""
    rows = list(entries)
    total = sum(entry.seconds for entry in rows)
    lines = [f"{'stage':<18}{'seconds':>10}{'share':>8}"]
    for entry in rows:
        share = entry.seconds / total if total else 0.0
        lines.append(f"{entry.stage:<18}{entry.seconds:>10,.1f}{share:>8.0%}")
    return "\n".join([*lines, f"{'all':<18}{total:>10,.1f}{1:>8.0%}"])
