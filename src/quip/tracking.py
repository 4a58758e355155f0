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
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from quip import stage as harness
from quip.errors import DataError, QuipError
from quip.lineage import data_hash, git_commit

EXPERIMENT = "quip"
FLUSH_SECONDS = 3.0
RETRY_SECONDS = 60.0
LOCK_SECONDS = 180.0
BATCH = 500
SQLITE = "sqlite:///"
SERVERS = ("http:", "https:", "databricks")
SECRET_NAME = re.compile(r"key|token|secret|password|passwd|credential", re.IGNORECASE)
SECRET_LENGTH = 8

Scalar = str | int | float | bool | None

# Read by mlflow when it is imported. A tracker that cannot be reached must not hold up training
# for minutes, so it is tried for seconds; a setting of the user's own wins.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


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


def connect() -> Store:
    """Open the store, creating database and experiment where they are not there yet.

    Two processes that create the database at once break it for good, so that happens under a
    file lock, beside the final place, and is renamed into it. Raises whatever MLflow raises.
    """
    uri, file = store_uri(), database()
    with FileLock(f"{file}.lock" if file else harness.state("mlflow.lock"), timeout=LOCK_SECONDS):
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
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


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
    """A training stage's own run. `id` is empty when MLflow could not be reached at the start.

    Nothing here raises on account of MLflow: the first failure is said in one line, the points
    are kept and sent later, and what never arrives is filled in by `backfill` from the files.
    """

    id: str = ""
    store: Store | None = None
    pending: list[Point] = field(default_factory=list)
    next_flush: float = 0.0
    warned: bool = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point per metric to the live curves; sent every few seconds."""
        now = time.time()
        points = (Point(k, float(v), step, round(now * 1000)) for k, v in metrics.items())
        self.pending.extend(points)
        if now >= self.next_flush:
            self.next_flush = now + FLUSH_SECONDS
            self.flush()

    def flush(self) -> None:
        self.attempt(self.send)

    def send(self, store: Store) -> None:
        log_points(store, self.id, self.pending)
        self.pending.clear()

    def end(self, status: str) -> None:
        self.flush()
        self.attempt(lambda store: store.client.set_terminated(self.id, status))

    def attempt(self, action: Callable[[Store], Any]) -> None:
        if self.store is None:
            return
        try:
            action(self.store)
        except Exception as error:  # a mirror that breaks must never break what it mirrors
            self.next_flush = time.time() + RETRY_SECONDS
            self.warn(error)

    def warn(self, error: Exception) -> None:
        if not self.warned:
            print(unreachable(error, "Training goes on"), file=sys.stderr)
        self.warned = True


def unreachable(error: Exception, consequence: str) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return (
        f"MLflow could not be used ({clean(reason)}). {consequence}; `dvc repro -f -s register` "
        "fills in from the files what is missing once it can."
    )


@contextmanager
def run(stage: str, params: Mapping[str, Scalar], data: Mapping[str, Path]) -> Iterator[Run]:
    """Open the run of one training stage, readable by its name (`sft`, `align@dpo`).

    `data` maps a role ("train", "base") to the file or folder that plays it; its DVC hash is
    logged as the run's input. An exception inside marks the run FAILED (KILLED on ctrl-C).
    """
    live = start(stage, params, data)
    try:
        yield live
    except BaseException as error:
        live.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    live.end("FINISHED")


def start(stage: str, params: Mapping[str, Scalar], data: Mapping[str, Path]) -> Run:
    live = Run()
    try:
        live.store = connect()
        end_dead_runs(live.store, stage)
        live.id = create_run(live.store, stage, params, process_tag())
        log_inputs(live.store, live.id, data)
    except Exception as error:  # a mirror that breaks must never break what it mirrors
        live.store = live.store if live.id else None
        live.warn(error)
    return live


def create_run(
    store: Store,
    stage: str,
    params: Mapping[str, Scalar],
    tags: Mapping[str, str],
    started: int | None = None,
) -> str:
    from mlflow.entities import Param

    tags = {**stage_tags(stage), **tags}
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
    tags = {
        "dvc.exp.name": os.environ.get("DVC_EXP_NAME"),
        "dvc.exp.baseline": os.environ.get("DVC_EXP_BASELINE_REV"),
        "git.commit": git_commit(),
    }
    return {key: clean(value) for key, value in tags.items() if value}


def process_tag() -> dict[str, str]:
    return {"quip.process": f"{socket.gethostname()}:{os.getpid()}"}


def end_dead_runs(store: Store, stage: str) -> None:
    """Mark as KILLED what kill -9 left RUNNING: runs of this stage whose process is gone."""
    query = f"attributes.status = 'RUNNING' and tags.\"quip.stage\" = '{stage}'"
    for old in store.client.search_runs([store.experiment], query):
        host, _, pid = old.data.tags.get("quip.process", "").rpartition(":")
        if host == socket.gethostname() and not alive(int(pid)):
            store.client.set_terminated(old.info.run_id, "KILLED")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def log_inputs(store: Store, run_id: str, data: Mapping[str, Path]) -> None:
    """Log each file or folder as a dataset whose digest is its DVC hash."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for role, path in data.items():
        source = json.dumps({"uri": path.as_posix()})
        dataset = Dataset(path.as_posix(), data_hash(path), "local", source)
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", role)]))
    store.client.log_inputs(run_id, inputs)


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
        yield connect()
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
        tags = {"quip.backfilled": "true"}
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
    """The run named by id, else by stage and model hash; None when this experiment has neither."""
    by_id = f"attributes.run_id = '{pointer['run_id'] or 'none'}'"
    by_hash = f"tags.\"quip.model_sha256\" = '{pointer['model_sha256']}'"
    by_stage = f"tags.\"quip.stage\" = '{stage}'"
    for query in (by_id, f"{by_hash} and {by_stage}"):
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
