"""MLflow as a mirror of what the training stages do; DVC decides, MLflow shows.

The only importer of `mlflow`, and it imports it late: `import quip.tracking.runs` costs nothing.
The store and the artifacts lie under the main checkout, also when a stage runs in the temporary
folder of an experiment, which is deleted with everything in it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from quip.runtime import clock
from quip.tracking import outbox
from quip.tracking.lineage import data_hash, git_commit
from quip.tracking.mlflow_store import (
    Store,
    TrackingError,
    clean,
    connect,
    failures,
    hurried,
    library,
    now_ms,
    unreachable,
)
from quip.tracking.outbox import Entry, Journal

FLUSH_SECONDS = 3.0
RETRY_SECONDS = 60.0
"""How long a live run leaves a store alone that failed; twice as long each further time."""


BATCH = 500
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")
"""MLflow's codes for what it will not take at any other time either."""


PLACES = ("dvc.exp.name", "dvc.exp.baseline", "git.commit")
KEY_TAG = "quip.key"
"""The tag by which a run is found that was made by a journal (`outbox.Journal.key`)."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Point:
    """One measured value. `at` is in milliseconds since 1970; `model` the logged model, if any."""

    key: str
    value: float
    step: int
    at: int
    model: str | None = None


# ---- a live run ----------------------------------------------------------------------------


@dataclass
class Run:
    """A training stage's own run. `id` is MLflow's; until MLflow has answered, the journal's key.

    Nothing here raises on account of MLflow. Everything goes into the journal first and is sent
    from there, and the first failure is said in one line.
    """

    id: str = ""
    journal: Journal | None = None
    store: Store | None = None
    sent: int = 0
    """Bytes of the journal that have arrived."""
    next_flush: float = 0.0
    wait: float = RETRY_SECONDS
    warned: bool = False

    def begin(self, stage: str, params: Mapping[str, Scalar]) -> None:
        journal = outbox.begin()
        values = {key: clean(str(value)) for key, value in params.items()}
        tags = {**stage_tags(stage), KEY_TAG: journal.key}
        journal.write("run", stage=stage, params=values, tags=tags, at=now_ms())
        self.journal, self.id = journal, journal.key

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point per metric to the live curves; sent every few seconds."""
        points = [[key, float(value), step, now_ms()] for key, value in metrics.items()]
        self.note("points", points=points)
        if time.time() >= self.next_flush:
            self.flush()

    def note(self, kind: str, **what: Any) -> None:
        journal = self.journal
        if journal:
            self.attempt(lambda: journal.write(kind, **what))

    def flush(self) -> None:
        self.next_flush = time.time() + FLUSH_SECONDS
        if not self.attempt(self.send):
            self.next_flush = time.time() + self.wait
            self.wait *= 2

    def send(self) -> None:
        if self.journal is None:
            return
        with hurried():
            if self.store is None:
                self.store = opened()
            entries, end = self.journal.read(self.sent)
            self.id = deliver(self.store, entries, self.id)
            self.sent = end

    def end(self, status: str) -> None:
        self.note("end", status=status, at=now_ms())
        arrived = self.attempt(self.send)
        if self.journal:
            self.journal.remove() if arrived else self.journal.close()

    def attempt(self, action: Callable[[], object]) -> bool:
        """Whether `action` could be done."""
        try:
            with clock.within("mlflow"):
                action()
        except Exception as error:  # a mirror that breaks must never break what it mirrors
            if not self.warned:
                print(unreachable(error, "Training goes on"), file=sys.stderr)
            self.warned = True
            return False
        return True


@contextmanager
def run(stage: str, params: Mapping[str, Scalar], data: Mapping[str, Path]) -> Iterator[Run]:
    """Open the run of one training stage, readable by its name (`sft`, `align@dpo`).

    `data` maps a role ("train", "base") to the file or folder that plays it; its DVC hash is
    logged as the run's input. An exception inside marks the run FAILED (KILLED on ctrl-C).
    """
    live = Run()
    live.attempt(lambda: live.begin(stage, params))
    live.attempt(lambda: live.note("inputs", inputs=inputs(data)))
    live.flush()
    try:
        with clock.within("training"):
            yield live
    except BaseException as error:
        live.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    live.end("FINISHED")


def inputs(data: Mapping[str, Path]) -> list[tuple[str, str, str]]:
    """(path, DVC's hash, role) of each file or folder."""
    return [(path.as_posix(), data_hash(path), role) for role, path in data.items()]


# ---- from the journal to the store ---------------------------------------------------------


def opened() -> Store:
    """The store, to which everything that was kept has been sent."""
    store = connect()
    send_kept(store)
    return store


def send_kept(store: Store) -> None:
    """Send what runs that have ended left in their journals, oldest first."""
    sent = 0
    for journal in outbox.left():
        try:
            entries = finished(journal)
            deliver(store, entries, "")
        except (library().exceptions.MlflowException, ValueError, KeyError) as error:
            if getattr(error, "error_code", REFUSALS[0]) not in REFUSALS:
                raise
            reason = clean(str(error).splitlines()[0][:160])
            print(f"MLflow does not take {journal.refuse()} ({reason}).", file=sys.stderr)
        else:
            journal.remove()
            sent += bool(entries)
    if sent:
        print(f"MLflow: sent what was kept of {sent} run{'s' * (sent > 1)}.", file=sys.stderr)


def finished(journal: Journal) -> list[Entry]:
    """All entries of a journal that nobody holds any more; kill -9 left it without an end."""
    entries, _ = journal.read(0)
    if entries and entries[-1]["kind"] != "end":
        entries.append({"kind": "end", "status": "KILLED", "at": journal.changed()})
    return entries


def deliver(store: Store, entries: Sequence[Entry], run_id: str) -> str:
    """Tell the store of these entries; the id of the run, which an entry `run` finds or makes.

    All of it may be told again when it is not known what has arrived: a run is found by its key,
    and the store takes an equal point, input or end only once.
    """
    for kind, group in groupby(entries, lambda entry: entry["kind"]):
        for entry in [merged(list(group))] if kind == "points" else group:
            run_id = TELL[kind](store, run_id, entry)
    return run_id


def merged(entries: Sequence[Entry]) -> Entry:
    return {"points": [point for entry in entries for point in entry["points"]]}


def tell_run(store: Store, run_id: str, entry: Entry) -> str:
    query = f"tags.\"{KEY_TAG}\" = '{entry['tags'][KEY_TAG]}'"
    found = store.client.search_runs([store.experiment], query, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return create_run(store, entry["stage"], entry["params"], entry["tags"], entry["at"])


def tell_inputs(store: Store, run_id: str, entry: Entry) -> str:
    """Each file or folder as a dataset whose digest is its DVC hash."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rows = [
        DatasetInput(
            Dataset(path, digest, "local", json.dumps({"uri": path})),
            [InputTag("mlflow.data.context", role)],
        )
        for path, digest, role in entry["inputs"]
    ]
    store.client.log_inputs(run_id, rows)
    return run_id


def tell_points(store: Store, run_id: str, entry: Entry) -> str:
    log_points(store, run_id, [Point(*point) for point in entry["points"]])
    return run_id


def tell_end(store: Store, run_id: str, entry: Entry) -> str:
    store.client.set_terminated(run_id, entry["status"], entry["at"])
    return run_id


TELL: dict[str, Callable[[Store, str, Entry], str]] = {
    "run": tell_run,
    "inputs": tell_inputs,
    "points": tell_points,
    "end": tell_end,
}


def create_run(
    store: Store,
    stage: str,
    params: Mapping[str, Scalar],
    tags: Mapping[str, str],
    started: int | None = None,
) -> str:
    from mlflow.entities import Param

    made = store.client.create_run(store.experiment, started, tags, run_name=stage)
    entries = [Param(key, clean(str(value))) for key, value in params.items()]
    store.client.log_batch(made.info.run_id, params=entries)
    return str(made.info.run_id)


def stage_tags(stage: str) -> dict[str, str]:
    """What the run is and where it stands in DVC and git."""
    here = place()
    commit = {"mlflow.source.git.commit": here["git.commit"]} if "git.commit" in here else {}
    source = {"mlflow.source.name": f"dvc repro {stage}", "mlflow.source.type": "LOCAL"}
    return {"quip.stage": stage, **here, **commit, **source}


def place() -> dict[str, str]:
    """The experiment, its baseline and the commit checked out, which under an experiment is the
    baseline too: its own does not exist yet (`trail.link` adds it)."""
    found = (os.environ.get("DVC_EXP_NAME"), os.environ.get("DVC_EXP_BASELINE_REV"), git_commit())
    return {key: clean(value) for key, value in zip(PLACES, found, strict=True) if value}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def log_points(store: Store, run_id: str, points: Sequence[Point]) -> None:
    from mlflow.entities import Metric

    metrics = [Metric(p.key, p.value, p.at, p.step, model_id=p.model) for p in points]
    for first in range(0, len(metrics), BATCH):
        store.client.log_batch(run_id, metrics=metrics[first : first + BATCH])


# ---- runs from files alone -----------------------------------------------------------------


@contextmanager
def required() -> Iterator[Store]:
    """An open store for work that is pointless without one. Raises TrackingError in one line."""
    try:
        with clock.within("mlflow"):
            yield opened()
    except failures() as error:
        raise TrackingError(unreachable(error, "Nothing is lost")) from error
