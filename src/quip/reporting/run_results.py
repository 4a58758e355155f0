"""Run results: everything a run measured, read from disk for the report, with the missing files."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from quip.core.jsonl import read_json, read_rows
from quip.core.records import Critique, Preference, Reference, Response
from quip.evaluation.metrics import preference_leakage
from quip.reporting import tables
from quip.runtime.errors import DataError

R = TypeVar("R", bound=BaseModel)


@dataclass
class RunResults:
    """The results found on disk; `missing` names the optional files that were not found."""

    wtr: dict[str, Any]
    metrics: dict[str, Any]
    references: list[Reference]
    roles: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    responses: dict[str, list[Response]] = field(default_factory=dict)
    verdicts: dict[str, list[Critique]] = field(default_factory=dict)
    curves: dict[str, tables.Table] = field(default_factory=dict)
    gold: list[Critique] = field(default_factory=list)
    preferences: list[Preference] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_run_results(
    metrics: Path,
    curves: Path,
    verdicts: Path,
    responses: Path,
    audit: Path,
    imitation: Path,
    preferences: Path,
    roles: Path,
    runs: Path,
) -> RunResults:
    """Read everything that the report shows. wtr.json and the references are required, the other
    files optional.

    Raises DataError when wtr.json is missing, and with file and line for a malformed file.
    """
    measured = {path.stem: read_json(path) for path in sorted(metrics.glob("*.json"))}
    if "wtr" not in measured:
        raise DataError(f"{metrics}/wtr.json: no such file. Run `dvc repro evaluate` first.")
    wtr = measured.pop("wtr")
    found = RunResults(wtr, measured, read_rows(imitation / "references.jsonl", Reference))
    for arm in wtr["arms"]:
        found.responses[arm] = read_optional_rows(
            responses / f"{arm}.jsonl", Response, found.missing
        )
        found.verdicts[arm] = read_optional_rows(verdicts / f"{arm}.jsonl", Critique, found.missing)
        found.curves[arm] = read_curve(curves / f"{arm}.csv", found.missing)
    found.gold = read_optional_rows(audit / "critiques.jsonl", Critique, found.missing)
    found.preferences = read_optional_rows(preferences, Preference, found.missing)
    trained = read_folder(runs, found.missing)
    found.runs = {arm: trained[arm] for arm in wtr["arms"] if arm in trained}
    found.roles = preference_leakage.model_roles(read_folder(roles, found.missing))
    found.missing += [
        f"{metrics}/{name}.json" for name in ("critic", "safety") if name not in measured
    ]
    return found


def read_optional_rows(path: Path, model: type[R], missing: list[str]) -> list[R]:
    """The rows of an optional file; a missing one is added to `missing`, a malformed one raises
    DataError."""
    if path.is_file():
        return read_rows(path, model)
    missing.append(str(path))
    return []


def read_folder(path: Path, missing: list[str]) -> dict[str, Any]:
    """{name: content} of every JSON file directly in a folder, in alphabetical order."""
    files = sorted(path.glob("*.json"))
    if not files:
        missing.append(f"{path}/*.json")
    return {file.stem: read_json(file) for file in files}


def read_curve(path: Path, missing: list[str]) -> tables.Table:
    """{column: (steps, values)} of a training curve; empty and non-finite cells are left out."""
    if not path.is_file():
        missing.append(str(path))
        return {}
    with path.open(encoding="utf-8", newline="") as handle:
        lines = csv.DictReader(handle)
        names = [name for name in lines.fieldnames or [] if name != "step"]
        table: tables.Table = {name: ([], []) for name in names}
        for line in lines:
            for name in names:
                value = parse_number(line[name], path, lines.line_num)
                if value is not None:
                    table[name][0].append(
                        parse_number(line.get("step"), path, lines.line_num) or 0.0
                    )
                    table[name][1].append(value)
    return table


def parse_number(cell: str | None, path: Path, line: int) -> float | None:
    try:
        value = float(cell) if cell else None
    except ValueError:
        raise DataError(f"{path}, line {line}: {cell!r} is not a number.") from None
    return value if value is not None and math.isfinite(value) else None
