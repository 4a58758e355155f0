"""Where the time went: the last run of every stage, from the local clock. Pure but for the file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel

from quip.runtime import clock
from quip.runtime.errors import DataError
from quip.runtime.paths import state


def note_time(name: str, seconds: float) -> None:
    """Append to the local clock that `quip times` reads. Never a stage's output."""
    entry = {"stage": name, "seconds": round(seconds, 2), "at": round(time.time(), 2)}
    line = json.dumps({**entry, "parts": clock.parts(), "repro": repro_began()})
    with state("times.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")


def repro_began() -> float | None:
    """When the DVC command began that runs this stage (seconds since 1970); None without one."""
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    try:
        ancestors = psutil.Process().parents()
        dvc = [p for p in ancestors if any(Path(w).stem == "dvc" for w in p.cmdline()[:3])]
        return round(dvc[0].create_time(), 2) if dvc else None
    except psutil.Error:
        return None


PARTS = ("start", "reading", "generation", "training", "mlflow", "calls")
"""What is told apart, as in `quip.runtime.clock`; the rest of a stage is `other`."""


GENERATING = ("candidates", "respond")
"""Stages whose rest is the student's writing: reading its prompts and generating."""


NAMES = {"reading": "prompts"}


class Entry(BaseModel):
    """One finished stage: how long it took, and when it ended (seconds since 1970); the seconds by
    part, and when the DVC command began that ran it."""

    stage: str
    seconds: float
    at: float
    parts: dict[str, float] = {}
    repro: float | None = None


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


def parts(entry: Entry) -> dict[str, float]:
    """The seconds of one stage by part, `other` included; they add up to the whole."""
    found = {part: entry.parts.get(part, 0.0) for part in PARTS} | {"other": 0.0}
    writes = entry.parts and entry.stage.partition("@")[0] in GENERATING
    rest = entry.seconds - sum(found.values())
    found["generation" if writes else "other"] += max(0.0, rest)
    return found


def totals(entries: Iterable[Entry]) -> dict[str, float]:
    """The seconds by part of all stages together, and DVC's own."""
    rows = list(entries)
    each = [parts(entry) for entry in rows]
    found = {part: sum(one[part] for one in each) for part in (*PARTS, "other")}
    return {**found, "dvc": dvc(rows)}


def dvc(entries: Iterable[Entry]) -> float:
    """Seconds of the last DVC command that were no stage's, from its start to its last stage's end:
    what it took to load the pipeline, hash, and move outputs. 0 when none is known."""
    rows = list(entries)
    began = max((entry.repro for entry in rows if entry.repro is not None), default=None)
    if began is None:
        return 0.0
    of_it = [entry for entry in rows if entry.repro is not None and abs(entry.repro - began) < 2]
    wall = max(entry.at for entry in of_it) - began
    return max(0.0, wall - sum(entry.seconds for entry in of_it))


def table(entries: Sequence[Entry]) -> str:
    """One line a stage: seconds, share of the whole, and by part where anything is known of it."""
    total = sum(entry.seconds for entry in entries)
    sums = totals(entries)
    shown = [part for part in (*PARTS, "other") if sums[part]] if known(entries) else []
    heads = "".join(f"{NAMES.get(part, part):>12}" for part in shown)
    lines = [f"{'stage':<18}{'seconds':>10}{'share':>8}{heads}"]
    for entry in entries:
        share = entry.seconds / total if total else 0.0
        each = parts(entry)
        lines.append(line(entry.stage, entry.seconds, share, [each[part] for part in shown]))
    lines.append(line("all", total, 1, [sums[part] for part in shown]))
    if sums["dvc"]:
        lines.append(f"{'dvc itself':<18}{sums['dvc']:>10,.1f}   in its last command")
    return "\n".join(lines)


def known(entries: Iterable[Entry]) -> bool:
    return any(entry.parts for entry in entries)


def line(name: str, seconds: float, share: float, each: Iterable[float]) -> str:
    cells = "".join(f"{value:>12,.1f}" if value else f"{'':>12}" for value in each)
    return f"{name:<18}{seconds:>10,.1f}{share:>8.0%}{cells}".rstrip()


def figures(path: Path, apart: str) -> dict[str, float]:
    """The sums by part for MLflow, `time/start` and so on, without the stage `apart`, which asks;
    nothing where no stage has told its parts."""
    rows = list(parsed(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    latest = [e for e in {entry.stage: entry for entry in rows}.values() if e.stage != apart]
    if not known(latest):
        return {}
    return {f"time/{part}": round(value, 1) for part, value in totals(latest).items()}
