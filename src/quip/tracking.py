"""MLflow as a mirror of what the training stages do; DVC decides, MLflow shows.

The only importer of `mlflow`, and it imports it late: `import quip.tracking` costs nothing.
The store and the artifacts lie under the main checkout, also when a stage runs in the temporary
folder of an experiment, which is deleted with everything in it.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock

from quip import clock, outbox
from quip import stage as harness
from quip.errors import DataError, QuipError
from quip.lineage import data_hash, git_commit
from quip.outbox import Entry, Journal

EXPERIMENT = "quip"
FLUSH_SECONDS = 3.0
RETRY_SECONDS = 60.0
"""How long a live run leaves a store alone that failed; twice as long each further time."""
LOCK_SECONDS = 180.0
BATCH = 500
SQLITE = "sqlite:///"
SERVERS = ("http:", "https:", "databricks")
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE")
"""MLflow's codes for what it will not take at any other time either."""
SECRET_NAME = re.compile(r"key|token|secret|password|passwd|credential", re.IGNORECASE)
SECRET_LENGTH = 8
PLACES = ("dvc.exp.name", "dvc.exp.baseline", "git.commit")
KEY_TAG = "quip.key"
"""The tag by which a run is found that was made by a journal (`outbox.Journal.key`)."""

Scalar = str | int | float | bool | None

# Read by mlflow when it is imported; a setting of the user's own wins.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
HURRIED = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""In place of QUIET's where a training waits. The others may send 540 MB in one request."""


class TrackingError(QuipError):
    """The tracking store could not be used. Data and models do not depend on it."""

    exit_code = 3


@dataclass(frozen=True)
class Store:
    """An open tracking store: its client, the id of this project's experiment, where it is."""

    client: Any
    experiment: str
    uri: str


@dataclass(frozen=True)
class Point:
    """One measured value. `at` is in milliseconds since 1970; `model` the logged model, if any."""

    key: str
    value: float
    step: int
    at: int
    model: str | None = None


# ---- the store -----------------------------------------------------------------------------


def library() -> Any:
    """The mlflow module, imported on first use with its telemetry off."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def default_uri() -> str:
    return f"{SQLITE}{harness.root() / 'mlflow.db'}"


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database in the main checkout. A relative SQLite path means
    the same file from every folder: it is taken from the main checkout."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    if uri.startswith(SQLITE):
        return f"{SQLITE}{harness.root() / uri.removeprefix(SQLITE)}"
    return uri


def database() -> Path | None:
    """The SQLite file of the store; None when a server or another database holds it."""
    uri = store_uri()
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


@contextmanager
def hurried() -> Iterator[None]:
    """A server that hangs holds up what is inside for seconds a request, not for minutes."""
    library()
    ours = {name: value for name, value in HURRIED.items() if os.environ[name] == QUIET[name]}
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.update({name: QUIET[name] for name in ours})


def connect() -> Store:
    """Open the store, creating database and experiment where they are not there yet.

    Two processes that create the database at once break it for good, so that happens under a
    file lock, beside the final place, and is renamed into it. Raises whatever MLflow raises.
    """
    uri, file = store_uri(), database()
    lock = FileLock(f"{file}.lock" if file else harness.state("mlflow.lock"), timeout=LOCK_SECONDS)
    with nullcontext() if uri.startswith(SERVERS) else lock, hurried():
        mlflow = library()
        if file and not file.exists():
            create_database(file)
        client = mlflow.MlflowClient(tracking_uri=uri)
        return Store(client, find_experiment(client, uri), uri)


def create_database(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    SqlAlchemyStore(f"{SQLITE}{fresh}", artifacts()).engine.dispose()
    if file.exists():  # `mlflow ui` has made one meanwhile
        fresh.unlink()
    else:
        os.replace(fresh, file)


def artifacts() -> str:
    return (harness.root() / "mlruns").as_uri()


def find_experiment(client: Any, uri: str) -> str:
    """The id of the experiment; made with its artifacts under the main checkout.

    Artifact addresses are absolute: in a checkout that was moved the old experiment points to
    where it used to be, so it is put aside by name and a new one begun.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found and uri == default_uri() and found.artifact_location != artifacts():
        client.rename_experiment(found.experiment_id, f"{EXPERIMENT} before {time.time_ns()}")
        found = None
    if found is None:
        # A server keeps artifacts where it was told to; a path of this machine means nothing there.
        location = None if uri.startswith(SERVERS) else artifacts()
        return create_experiment(client, location)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def create_experiment(client: Any, location: str | None) -> str:
    """The id of the new experiment, or of the one that another process made just now."""
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except library().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


@contextmanager
def current(store: Store) -> Iterator[Any]:
    """The mlflow module with `store` as its global one; afterwards as it was before."""
    mlflow, before = library(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(store.uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


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


def unreachable(error: Exception, consequence: str) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return (
        f"MLflow could not be used ({clean(reason)}). {consequence}; what it should show is kept, "
        "and `dvc repro` or `quip sync` sends it once it can."
    )


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


def clean(text: str) -> str:
    """`text` without any value of an environment variable that is named like a secret."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH:
            text = text.replace(value, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


# ---- runs from files alone -----------------------------------------------------------------


@contextmanager
def required() -> Iterator[Store]:
    """An open store for work that is pointless without one. Raises TrackingError in one line."""
    try:
        with clock.within("mlflow"):
            yield opened()
    except failures() as error:
        raise TrackingError(unreachable(error, "Nothing is lost")) from error


def failures() -> tuple[type[Exception], ...]:
    """How a store fails that is absent, damaged, too old, locked or unwilling."""
    library()
    from alembic.util import CommandError
    from filelock import Timeout
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, ConnectionError, Timeout)


def backfill(stage: str, curve_csv: Path, params: Mapping[str, Scalar], run_json: Path) -> str:
    """The id of the run that made a model, complete: found by the id or the model hash that
    `run_json` names, else made, and its curve filled up from `curve_csv`.

    So a stage that DVC took from its cache or pulled has a run too. Metric names are the CSV's
    columns. Raises DataError for a malformed file, TrackingError when the store cannot be used.
    """
    pointer, curve = read_pointer(run_json), read_curve(curve_csv)
    with required() as store:
        known = find_run(store, stage, pointer)
        took = round(pointer["seconds"] * 1000)
        started = known.info.start_time if known else now_ms() - took
        tags = {**stage_tags(stage), "quip.backfilled": "true"}
        run_id = known.info.run_id if known else create_run(store, stage, params, tags, started)
        # The hash first: a crash half way leaves a run that the next attempt finds and completes.
        store.client.set_tag(run_id, "quip.model_sha256", pointer["model_sha256"])
        log_points(store, run_id, missing_points(store, run_id, curve, started))
        if known is None or known.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def now_ms() -> int:
    return round(time.time() * 1000)


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
    """data/runs/<arm>.json: run_id, stage, model_sha256, seconds, params. Raises DataError."""
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
    """(step, metric, value) for every filled cell of a curve file. Raises DataError by line."""
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
