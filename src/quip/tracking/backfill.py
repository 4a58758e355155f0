"""MLflow runs rebuilt from files, for trainings that DVC skipped or pulled.

Reads a stage's data/runs/<arm>.json and its curve; writes the missing run and points to MLflow.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.runtime.errors import DataError
from quip.tracking.mlflow_store import Store, now_ms
from quip.tracking.runs import (
    KEY_TAG,
    Point,
    Scalar,
    create_run,
    log_points,
    require_store,
    stage_tags,
)


def backfill(stage: str, curve_csv: Path, params: Mapping[str, Scalar], run_json: Path) -> str:
    """Complete the MLflow run that made a model, and return its id.

    The run is found by the id or the model hash in `run_json`, or created; points that it lacks
    are added from `curve_csv`, whose columns are the metric names. A stage that DVC took from its
    cache or pulled thus has a run too. Raises DataError for a malformed file, TrackingError when
    the store cannot be used.
    """
    pointer, curve = read_pointer(run_json), read_curve(curve_csv)
    with require_store() as store:
        known = find_run(store, stage, pointer)
        took = round(pointer["seconds"] * 1000)
        started = known.info.start_time if known else now_ms() - took
        tags = {**stage_tags(stage), "quip.backfilled": "true"}
        run_id = known.info.run_id if known else create_run(store, stage, params, tags, started)
        # The hash is written first: after a crash the next attempt finds and completes this run.
        store.client.set_tag(run_id, "quip.model_sha256", pointer["model_sha256"])
        log_points(store, run_id, missing_points(store, run_id, curve, started))
        if known is None or known.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def find_run(store: Store, stage: str, pointer: dict[str, Any]) -> Any:
    """The run named by id or key, else by stage and model hash; None when there is none here."""
    name = pointer["run_id"] or "none"
    by_id, by_key = f"attributes.run_id = '{name}'", f"tags.\"{KEY_TAG}\" = '{name}'"
    by_hash = f"tags.\"quip.model_sha256\" = '{pointer['model_sha256']}'"
    by_stage = f"tags.\"quip.stage\" = '{stage}'"
    for query in (by_id, by_key, f"{by_hash} and {by_stage}"):
        found = store.client.search_runs([store.experiment], query, max_results=1)
        if found:
            return found[0]
    return None


def read_pointer(path: Path) -> dict[str, Any]:
    """Read data/runs/<arm>.json: run_id, stage, model_sha256, seconds, params. Raises DataError."""
    try:
        pointer = json.loads(path.read_text(encoding="utf-8"))
        return {
            "run_id": re.sub(r"\W", "", str(pointer.get("run_id") or "")),
            "stage": str(pointer.get("stage") or path.stem),
            "model_sha256": re.sub(r"\W", "", str(pointer["model_sha256"])),
            "seconds": float(pointer.get("seconds") or 0),
            "params": dict(pointer.get("params") or {}),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "a JSON object with run_id, model_sha256 and seconds"
        raise DataError(f"{path}: expected {wanted} ({error}). Run `dvc repro`.") from None


def read_curve(path: Path) -> list[tuple[int, str, float]]:
    """(step, metric, value) of every filled cell of a curve file. DataError names the line."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Run `dvc repro` (or `dvc pull`) to make it.")
    values = []
    with path.open(encoding="utf-8", newline="") as handle:
        for number, row in enumerate(csv.DictReader(handle), start=2):
            try:
                step = int(float(row.pop("step")))
                values += [(step, key, float(cell)) for key, cell in row.items() if cell]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{path}, line {number}: not a row of a curve ({error}).") from None
    return values


def missing_points(
    store: Store, run_id: str, curve: Sequence[tuple[int, str, float]], started: int
) -> list[Point]:
    """The points of `curve` that the run does not have, in the order of the file."""
    known = {
        key: {metric.step for metric in store.client.get_metric_history(run_id, key)}
        for key in {key for _, key, _ in curve}
    }
    return [Point(key, v, step, started) for step, key, v in curve if step not in known[key]]
