"""MLflow runs of the training stages: live curves, params and inputs, sent through the outbox.

DVC decides what runs; MLflow only shows it, so no failure of MLflow stops a training. `mlflow` is
imported on first use: `import quip.tracking.runs` is cheap. The store and the artifacts lie under
the main checkout, also when a stage runs in the temporary folder of an experiment, which DVC
deletes afterwards.
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
    connect,
    failure_message,
    mask_secrets,
    mlflow_module,
    now_ms,
    short_timeouts,
    store_errors,
)
from quip.tracking.outbox import Entry, Journal

FLUSH_SECONDS = 3.0
RETRY_SECONDS = 60.0
"""Seconds until a live run tries a failed store again; they double with each failure."""


BATCH_SIZE = 500
REFUSAL_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")
"""MLflow's error codes for entries that it refuses for good."""


EXPERIMENT_TAGS = ("dvc.exp.name", "dvc.exp.baseline", "git.commit")
KEY_TAG = "quip.key"
"""The tag that holds the key of a run's journal (`outbox.Journal.key`)."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Point:
    """One metric value. `at` is in milliseconds since 1970; `model` is the logged model, if any."""

    key: str
    value: float
    step: int
    at: int
    model: str | None = None


# ---- a live run ----------------------------------------------------------------------------


@dataclass
class Run:
    """The live run of a training stage. `id` is MLflow's; before MLflow answers, the journal's key.

    No failure of MLflow raises. Each entry goes into the journal and is sent from there; the first
    failure is printed in one line.
    """

    id: str = ""
    journal: Journal | None = None
    store: Store | None = None
    sent: int = 0
    """Bytes of the journal that MLflow has received."""
    next_flush: float = 0.0
    wait: float = RETRY_SECONDS
    warned: bool = False

    def begin(self, stage: str, params: Mapping[str, Scalar]) -> None:
        journal = outbox.create_journal()
        values = {key: mask_secrets(str(value)) for key, value in params.items()}
        tags = {**stage_tags(stage), KEY_TAG: journal.key}
        journal.write("run", stage=stage, params=values, tags=tags, at=now_ms())
        self.journal, self.id = journal, journal.key

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point per metric to the live curves; points are sent every FLUSH_SECONDS."""
        points = [[key, float(value), step, now_ms()] for key, value in metrics.items()]
        self.write("points", points=points)
        if time.time() >= self.next_flush:
            self.flush()

    def write(self, kind: str, **what: Any) -> None:
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
        with short_timeouts():
            if self.store is None:
                self.store = open_store()
            entries, end = self.journal.read(self.sent)
            self.id = deliver(self.store, entries, self.id)
            self.sent = end

    def end(self, status: str) -> None:
        self.write("end", status=status, at=now_ms())
        arrived = self.attempt(self.send)
        if self.journal:
            self.journal.remove() if arrived else self.journal.close()

    def attempt(self, action: Callable[[], object]) -> bool:
        """Run `action` and return whether it succeeded."""
        try:
            with clock.measure("mlflow"):
                action()
        except Exception as error:  # MLflow is a mirror: its failure must not stop a training
            if not self.warned:
                print(failure_message(error, "Training goes on"), file=sys.stderr)
            self.warned = True
            return False
        return True


@contextmanager
def run(stage: str, params: Mapping[str, Scalar], data: Mapping[str, Path]) -> Iterator[Run]:
    """Open the run of one training stage, named as the stage (`sft`, `align@dpo`).

    `data` maps a role ("train", "base") to a file or folder, whose DVC hash is logged as an input
    of the run. An exception inside marks the run FAILED (KILLED on ctrl-C) and is raised on.
    """
    live = Run()
    live.attempt(lambda: live.begin(stage, params))
    live.attempt(lambda: live.write("inputs", inputs=inputs(data)))
    live.flush()
    try:
        with clock.measure("training"):
            yield live
    except BaseException as error:
        live.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    live.end("FINISHED")


def inputs(data: Mapping[str, Path]) -> list[tuple[str, str, str]]:
    """(path, DVC's hash, role) of each file or folder of `data`."""
    return [(path.as_posix(), data_hash(path), role) for role, path in data.items()]


# ---- from the journal to the store ---------------------------------------------------------


def open_store() -> Store:
    """Connect to the store and send it the journals that earlier runs left."""
    store = connect()
    send_outbox(store)
    return store


def send_outbox(store: Store) -> None:
    """Send the journals of runs that have ended, oldest first; set aside those MLflow refuses."""
    sent = 0
    for journal in outbox.ended_journals():
        try:
            entries = ended_entries(journal)
            deliver(store, entries, "")
        except (mlflow_module().exceptions.MlflowException, ValueError, KeyError) as error:
            if getattr(error, "error_code", REFUSAL_CODES[0]) not in REFUSAL_CODES:
                raise
            reason = mask_secrets(str(error).splitlines()[0][:160])
            print(f"MLflow does not take {journal.set_aside()} ({reason}).", file=sys.stderr)
        else:
            journal.remove()
            sent += bool(entries)
    if sent:
        print(f"MLflow: sent what was kept of {sent} run{'s' * (sent > 1)}.", file=sys.stderr)


def ended_entries(journal: Journal) -> list[Entry]:
    """All entries of a journal whose owner has ended; adds the end that kill -9 left out."""
    entries, _ = journal.read(0)
    if entries and entries[-1]["kind"] != "end":
        entries.append({"kind": "end", "status": "KILLED", "at": journal.modified_ms()})
    return entries


def deliver(store: Store, entries: Sequence[Entry], run_id: str) -> str:
    """Send entries to the store; returns the id of the run, which an entry `run` finds or creates.

    Entries may be sent twice when it is unknown whether they arrived: a run is found by its key,
    and the store keeps an equal point, input or end only once.
    """
    for kind, group in groupby(entries, lambda entry: entry["kind"]):
        for entry in [merge_points(list(group))] if kind == "points" else group:
            run_id = SENDERS[kind](store, run_id, entry)
    return run_id


def merge_points(entries: Sequence[Entry]) -> Entry:
    return {"points": [point for entry in entries for point in entry["points"]]}


def send_run(store: Store, run_id: str, entry: Entry) -> str:
    query = f"tags.\"{KEY_TAG}\" = '{entry['tags'][KEY_TAG]}'"
    found = store.client.search_runs([store.experiment], query, max_results=1)
    if found:
        return str(found[0].info.run_id)
    return create_run(store, entry["stage"], entry["params"], entry["tags"], entry["at"])


def send_inputs(store: Store, run_id: str, entry: Entry) -> str:
    """Log each file or folder as a dataset whose digest is its DVC hash."""
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


def send_points(store: Store, run_id: str, entry: Entry) -> str:
    log_points(store, run_id, [Point(*point) for point in entry["points"]])
    return run_id


def send_end(store: Store, run_id: str, entry: Entry) -> str:
    store.client.set_terminated(run_id, entry["status"], entry["at"])
    return run_id


SENDERS: dict[str, Callable[[Store, str, Entry], str]] = {
    "run": send_run,
    "inputs": send_inputs,
    "points": send_points,
    "end": send_end,
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
    entries = [Param(key, mask_secrets(str(value))) for key, value in params.items()]
    store.client.log_batch(made.info.run_id, params=entries)
    return str(made.info.run_id)


def stage_tags(stage: str) -> dict[str, str]:
    """Tags of a run: its stage, its DVC experiment and its git commit."""
    here = experiment_tags()
    commit = {"mlflow.source.git.commit": here["git.commit"]} if "git.commit" in here else {}
    source = {"mlflow.source.name": f"dvc repro {stage}", "mlflow.source.type": "LOCAL"}
    return {"quip.stage": stage, **here, **commit, **source}


def experiment_tags() -> dict[str, str]:
    """The DVC experiment, its baseline and the commit checked out.

    In an experiment that commit is the baseline too: the experiment's own does not exist yet
    (`provenance.link` adds it).
    """
    found = (os.environ.get("DVC_EXP_NAME"), os.environ.get("DVC_EXP_BASELINE_REV"), git_commit())
    return {
        key: mask_secrets(value) for key, value in zip(EXPERIMENT_TAGS, found, strict=True) if value
    }


def process_exists(pid: int) -> bool:
    """Whether a process of this id runs on this machine, whoever owns it."""
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
    for first in range(0, len(metrics), BATCH_SIZE):
        store.client.log_batch(run_id, metrics=metrics[first : first + BATCH_SIZE])


# ---- runs rebuilt from files -----------------------------------------------------------------


@contextmanager
def require_store() -> Iterator[Store]:
    """An open store for work that needs one. Raises TrackingError, one line, when it fails."""
    try:
        with clock.measure("mlflow"):
            yield open_store()
    except store_errors() as error:
        raise TrackingError(failure_message(error, "Nothing is lost")) from error
