"""MLflow store of this checkout: finds it, creates it once under a lock and connects to it."""

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

# MLflow reads these variables at import; a variable that the user has set wins.
DEFAULT_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


SHORT_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""Request limits while a training waits. Other requests may send 540 MB and keep the long ones."""


class TrackingError(QuipError):
    """The tracking store cannot be used. Data and models do not depend on it."""

    exit_code = 3


@dataclass(frozen=True)
class Store:
    """An open tracking store: its MLflow client, the id of this project's experiment, its URI."""

    client: Any
    experiment: str
    uri: str


# ---- the store -----------------------------------------------------------------------------


def mlflow_module() -> Any:
    """The module `mlflow`, imported on first use with its telemetry off."""
    for name, value in DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    return mlflow


def default_uri() -> str:
    return f"{SQLITE}{paths.root() / 'mlflow.db'}"


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, else the database in the main checkout.

    A relative SQLite path is resolved against the main checkout, so that it names one file from
    every folder.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or default_uri()
    if uri.startswith(SQLITE):
        return f"{SQLITE}{paths.root() / uri.removeprefix(SQLITE)}"
    return uri


def database_file() -> Path | None:
    """The SQLite file of the store; None when a server or another database holds it."""
    uri = store_uri()
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


@contextmanager
def short_timeouts() -> Iterator[None]:
    """Limit each MLflow request inside to seconds, so that a server that hangs costs no minutes."""
    mlflow_module()
    ours = {
        name: value
        for name, value in SHORT_TIMEOUTS.items()
        if os.environ[name] == DEFAULT_ENVIRONMENT[name]
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.update({name: DEFAULT_ENVIRONMENT[name] for name in ours})


def connect() -> Store:
    """Open the store; create its database and experiment when they are missing.

    Two processes that create the database at once break it for good. The database is therefore
    created under a file lock and under another name, then renamed. Raises what MLflow raises
    (`store_errors`).
    """
    uri, file = store_uri(), database_file()
    lock = FileLock(f"{file}.lock" if file else paths.state("mlflow.lock"), timeout=LOCK_SECONDS)
    with nullcontext() if uri.startswith(SERVERS) else lock, short_timeouts():
        mlflow = mlflow_module()
        if file and not file.exists():
            create_database(file)
        client = mlflow.MlflowClient(tracking_uri=uri)
        return Store(client, find_experiment(client, uri), uri)


def create_database(file: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    SqlAlchemyStore(f"{SQLITE}{fresh}", artifact_uri()).engine.dispose()
    if file.exists():  # `mlflow ui` has created one meanwhile
        fresh.unlink()
    else:
        os.replace(fresh, file)


def artifact_uri() -> str:
    return (paths.root() / "mlruns").as_uri()


def find_experiment(client: Any, uri: str) -> str:
    """The id of this project's experiment; creates it with artifacts under the main checkout.

    Artifact addresses are absolute. After a move of the checkout the old experiment points to the
    old place, so it is renamed and a new one is created.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found and uri == default_uri() and found.artifact_location != artifact_uri():
        client.rename_experiment(found.experiment_id, f"{EXPERIMENT} before {time.time_ns()}")
        found = None
    if found is None:
        # A server has an artifact location of its own; a path of this machine means nothing there.
        location = None if uri.startswith(SERVERS) else artifact_uri()
        return create_experiment(client, location)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def create_experiment(client: Any, location: str | None) -> str:
    """The id of the new experiment, or of the one that another process has just created."""
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except mlflow_module().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(client.get_experiment_by_name(EXPERIMENT).experiment_id)


@contextmanager
def use_store(store: Store) -> Iterator[Any]:
    """The module `mlflow` with `store` as its global tracking store; restores the old one after."""
    mlflow, before = mlflow_module(), os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(store.uri)
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def failure_message(error: Exception, consequence: str) -> str:
    """One line: the reason, the `consequence`, and how the kept entries reach MLflow later."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    return (
        f"MLflow could not be used ({mask_secrets(reason)}). {consequence}; the entries for it are "
        "kept, and `dvc repro` or `quip sync` sends them when it can be used."
    )


def mask_secrets(text: str) -> str:
    """`text` with `***` for credentials in URLs and for values of environment variables whose
    names look like secrets."""
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value) >= SECRET_LENGTH:
            text = text.replace(value, "***")
    return re.sub(r"://[^/@\s]+@", "://***@", text)


def store_errors() -> tuple[type[Exception], ...]:
    """The exceptions of a store that is absent, damaged, outdated, locked or refuses."""
    mlflow_module()
    from alembic.util import CommandError
    from filelock import Timeout
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, CommandError, ConnectionError, Timeout)


def now_ms() -> int:
    return round(time.time() * 1000)
