"""MLflow's store of this checkout: found, created once under a lock, reached."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from quip.runtime import paths
from quip.runtime.errors import QuipError

EXPERIMENT = "quip"
LOCK_SECONDS = 180.0
SQLITE = "sqlite:///"
SERVERS = ("http:", "https:", "databricks")
SECRET_NAME = re.compile(r"key|token|secret|password|passwd|credential", re.IGNORECASE)
SECRET_LENGTH = 8

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
    return f"{SQLITE}{paths.root() / 'mlflow.db'}"


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database in the main checkout. A relative SQLite path means
    the same file from every folder: it is taken from the main checkout."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    if uri.startswith(SQLITE):
        return f"{SQLITE}{paths.root() / uri.removeprefix(SQLITE)}"
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
    lock = FileLock(f"{file}.lock" if file else paths.state("mlflow.lock"), timeout=LOCK_SECONDS)
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
    return (paths.root() / "mlruns").as_uri()


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


def unreachable(error: Exception, consequence: str) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return (
        f"MLflow could not be used ({clean(reason)}). {consequence}; what it should show is kept, "
        "and `dvc repro` or `quip sync` sends it once it can."
    )


def clean(text: str) -> str:
    """`text` without any value of an environment variable that is named like a secret."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH:
            text = text.replace(value, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def failures() -> tuple[type[Exception], ...]:
    """How a store fails that is absent, damaged, too old, locked or unwilling."""
    library()
    from alembic.util import CommandError
    from filelock import Timeout
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, ConnectionError, Timeout)


def now_ms() -> int:
    return round(time.time() * 1000)
