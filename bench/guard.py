"""Regression guard of the benches: ratios against those recorded in bench/ratios.json.

A ratio compares this project with a baseline on the same machine, so that the machine mostly
cancels out; more is better. Each bench ends with `report_and_record(ratios)`, which prints the
verdicts and, under `make bench RECORD=1`, records the ratios with the hardware.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RATIOS = Path(__file__).parent / "ratios.json"
TOLERANCE = 0.1
"""Share by which a ratio may fall before it counts as slower: the variation between two runs."""


def report_and_record(ratios: Mapping[str, float]) -> None:
    """Print the report; save the ratios when RECORD is set in the environment."""
    print(report(ratios))
    if os.environ.get("RECORD"):
        save(ratios)


def report(ratios: Mapping[str, float]) -> str:
    """One line per ratio (now, recorded, verdict), then the names of the slower ones."""
    recorded = read()
    lines = [f"{'ratio':<44}{'now':>8}{'recorded':>10}  verdict"]
    slower = []
    for name, ratio in ratios.items():
        before = recorded.get(name, {}).get("ratio")
        found = verdict(ratio, before)
        slower += [name] if found == "SLOWER" else []
        lines.append(f"{name:<44}{ratio:>8.2f}{before or float('nan'):>10.2f}  {found}")
    lines.append(f"slower than recorded: {', '.join(slower) or 'nothing'} (here: {hardware()})")
    return "\n".join(lines)


def verdict(ratio: float, before: float | None) -> str:
    if before is None:
        return "new"
    if ratio < before * (1 - TOLERANCE):
        return "SLOWER"
    return "faster" if ratio > before * (1 + TOLERANCE) else "as recorded"


def save(ratios: Mapping[str, float], path: Path | None = None) -> None:
    """Record these ratios, replacing those of the same names; the others stay."""
    path = path or RATIOS
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    new = {
        name: {"ratio": round(ratio, 3), "hardware": hardware(), "date": day}
        for name, ratio in ratios.items()
    }
    rows = {**read(path), **new}
    path.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read(path: Path | None = None) -> dict[str, dict[str, Any]]:
    path = path or RATIOS
    if not path.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def hardware() -> str:
    """The machine in one line, for example "2 cores, Intel(R) Xeon(R), AMX, 24 GB"."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model, flags = processor()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    special = [
        name for flag, name in (("amx_bf16", "AMX"), ("avx512f", "AVX-512")) if flag in flags
    ]
    return ", ".join([f"{cores} cores", model, *special[:1], f"{memory:.0f} GB"])


def processor() -> tuple[str, list[str]]:
    """Name and flags of the processor, as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    facts = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    return facts.get("model name", platform.machine()).strip(), facts.get("flags", "").split()
