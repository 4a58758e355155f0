"""Stage times: the duration of every stage's last run, by part.

Each stage appends a line to .quip/times.jsonl, and `quip times` prints the table.
"""

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
    """Append the stage's seconds to .quip/times.jsonl, which is not an output of the stage."""
    entry = {"stage": name, "seconds": round(seconds, 2), "at": round(time.time(), 2)}
    line = json.dumps({**entry, "parts": clock.parts(), "repro": repro_start()})
    with state("times.jsonl").open("a", encoding="utf-8") as handle:
        handle.write(line + "\n")


def repro_start() -> float | None:
    """The start of the DVC command that runs this stage (seconds since 1970); None without one."""
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
"""The parts of `quip.runtime.clock`; the rest of a stage is the part `other`."""


GENERATING = ("candidates", "respond")
"""Stages whose rest counts as generation: the student reads prompts and writes texts."""


NAMES = {"reading": "prompts"}


class Entry(BaseModel):
    """One finished stage.

    seconds  its duration
    at       its end (seconds since 1970)
    parts    its seconds by part
    repro    the start of the DVC command that ran it (seconds since 1970)
    """

    stage: str
    seconds: float
    at: float
    parts: dict[str, float] = {}
    repro: float | None = None


def read(path: Path) -> list[Entry]:
    """The latest entry of each stage, in order of their ends. A line cut off by a kill is skipped.

    Raises DataError when there is no entry.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    latest = {entry.stage: entry for entry in parse_lines(lines)}
    if not latest:
        raise DataError(f"{path}: no stage has finished here yet. Run `make run` or `dvc repro`.")
    return sorted(latest.values(), key=lambda entry: entry.at)


def parse_lines(lines: Iterable[str]) -> Iterable[Entry]:
    """The entries of the readable lines."""
    for line in lines:
        try:
            yield Entry.model_validate(json.loads(line))
        except ValueError:
            continue


def seconds_by_part(entry: Entry) -> dict[str, float]:
    """The seconds of one stage by part, with `other`; their sum is the stage's duration."""
    found = {part: entry.parts.get(part, 0.0) for part in PARTS} | {"other": 0.0}
    writes = entry.parts and entry.stage.partition("@")[0] in GENERATING
    rest = entry.seconds - sum(found.values())
    found["generation" if writes else "other"] += max(0.0, rest)
    return found


def totals(entries: Iterable[Entry]) -> dict[str, float]:
    """The seconds of all stages together by part, and DVC's own as `dvc`."""
    rows = list(entries)
    each = [seconds_by_part(entry) for entry in rows]
    found = {part: sum(one[part] for one in each) for part in (*PARTS, "other")}
    return {**found, "dvc": dvc_seconds(rows)}


def dvc_seconds(entries: Iterable[Entry]) -> float:
    """The seconds of the last DVC command outside its stages, up to the end of its last stage.

    DVC spends them on loading the pipeline, hashing and moving outputs. 0 when no entry has a DVC
    command.
    """
    rows = list(entries)
    began = max((entry.repro for entry in rows if entry.repro is not None), default=None)
    if began is None:
        return 0.0
    of_it = [entry for entry in rows if entry.repro is not None and abs(entry.repro - began) < 2]
    wall = max(entry.at for entry in of_it) - began
    return max(0.0, wall - sum(entry.seconds for entry in of_it))


def table(entries: Sequence[Entry]) -> str:
    """A table with one line for each stage: seconds, share of the total, seconds by part."""
    total = sum(entry.seconds for entry in entries)
    sums = totals(entries)
    shown = [part for part in (*PARTS, "other") if sums[part]] if has_parts(entries) else []
    heads = "".join(f"{NAMES.get(part, part):>12}" for part in shown)
    lines = [f"{'stage':<18}{'seconds':>10}{'share':>8}{heads}"]
    for entry in entries:
        share = entry.seconds / total if total else 0.0
        each = seconds_by_part(entry)
        lines.append(table_row(entry.stage, entry.seconds, share, [each[part] for part in shown]))
    lines.append(table_row("all", total, 1, [sums[part] for part in shown]))
    if sums["dvc"]:
        lines.append(f"{'dvc itself':<18}{sums['dvc']:>10,.1f}   in its last command")
    return "\n".join(lines)


def has_parts(entries: Iterable[Entry]) -> bool:
    return any(entry.parts for entry in entries)


def table_row(name: str, seconds: float, share: float, each: Iterable[float]) -> str:
    cells = "".join(f"{value:>12,.1f}" if value else f"{'':>12}" for value in each)
    return f"{name:<18}{seconds:>10,.1f}{share:>8.0%}{cells}".rstrip()


def mlflow_metrics(path: Path, apart: str) -> dict[str, float]:
    """The total seconds by part as MLflow metrics, `time/start` and so on; {} without parts.

    The stage `apart`, which logs them, is left out, since it has not ended.
    """
    rows = (
        list(parse_lines(path.read_text(encoding="utf-8").splitlines())) if path.is_file() else []
    )
    latest = [e for e in {entry.stage: entry for entry in rows}.values() if e.stage != apart]
    if not has_parts(latest):
        return {}
    return {f"time/{part}": round(value, 1) for part, value in totals(latest).items()}
