"""The registered model: one version per trained student, found again by the hash of its weights.

Everything goes through `tracking`; calling any of it twice changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from quip.runtime.errors import DataError
from quip.tracking.mlflow_store import Store, clean, current, now_ms

PREFIX = "promotion."
"""Tags of the registered model: `promotion.<milliseconds since 1970>`, one a promotion."""


def crown(
    store: Store,
    name: str,
    number: str,
    deposed: str | None,
    why: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Move the aliases (a deposed champion becomes challenger) and keep what was decided."""
    entry = {"version": number, "over": deposed, "why": why, **(details or {})}
    client = store.client
    client.set_registered_model_tag(name, f"{PREFIX}{now_ms()}", clean(json.dumps(entry)))
    client.set_model_version_tag(name, number, "promotion", clean(why))
    client.set_registered_model_alias(name, "champion", number)
    if deposed:
        client.set_registered_model_alias(name, "challenger", deposed)


def history(store: Store, name: str) -> list[tuple[int, dict[str, Any]]]:
    """(milliseconds since 1970, what was decided) of every promotion, oldest first."""
    for model in store.client.search_registered_models(f"name = '{name}'"):
        tags = {k.removeprefix(PREFIX): v for k, v in model.tags.items() if k.startswith(PREFIX)}
        return sorted((int(at), json.loads(value)) for at, value in tags.items())
    return []


def told(at: int, entry: Mapping[str, Any]) -> str:
    """One promotion as a line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1000))
    over = f" over version {entry['over']}" if entry["over"] else ""
    return f"{when}  version {entry['version']}{over}: {entry['why']}"


MODEL_CODE = Path(__file__).parents[1] / "serving" / "pyfunc_model.py"
REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")
HASH_TAG = "quip.model_sha256"
OPTIONS: dict[str, int | float] = {
    "num_return_sequences": 1,
    "temperature": 0.0,
    "top_p": 0.95,
    "seed": 0,
    "max_new_tokens": 40,
    "num_beams": 4,
}
"""What a caller of the served model may set (see `speak.paraphrases`), and what holds otherwise."""


@dataclass(frozen=True)
class Student:
    """A trained student on disk: its arm, its folder, the run that made it, its digest."""

    arm: str
    folder: Path
    run_id: str
    sha256: str


@dataclass(frozen=True)
class Version:
    """A version of the registered model. `model` is the id of the logged model behind it."""

    number: str
    run_id: str
    model: str


def register(
    store: Store, name: str, student: Student, options: Mapping[str, int | float]
) -> Version:
    """The version of `name` that holds these weights, made in their training run if need be.

    `options` are the defaults of serving. MLflow copies the folder into its artifact store, so
    that a version outlives DVC's workspace: one more copy on disk (540 MB for a 135M student in
    float32). There is no way to link instead.
    """
    found = find(store, name, student)
    if found is not None:
        return found
    model = log_model(store, student, options)
    if not store.client.search_registered_models(f"name = '{name}'"):
        store.client.create_registered_model(name)
    # The registry looks the model up at MLflow's global address, whatever the client's is.
    with current(store):
        made = store.client.create_model_version(
            name,
            f"models:/{model}",
            student.run_id,
            {"arm": student.arm, HASH_TAG: student.sha256},
            model_id=model,
        )
    return Version(str(made.version), student.run_id, model)


def find(store: Store, name: str, student: Student) -> Version | None:
    """The newest version of this arm with these weights whose files are still where they were
    put (addresses are absolute: a checkout that was moved has lost them)."""
    for version in versions(store, name):
        same = (version.tags.get("arm"), version.tags.get(HASH_TAG)) == (
            student.arm,
            student.sha256,
        )
        if same and files_exist(store.client.get_model_version_download_uri(name, version.version)):
            return Version(str(version.version), version.run_id, version.source.rpartition("/")[2])
    return None


def versions(store: Store, name: str) -> list[Any]:
    """MLflow's model versions, newest first."""
    newest_first = ["version_number DESC"]
    found = store.client.search_model_versions(f"name = '{name}'", order_by=newest_first)
    return list(found)


def aliases(store: Store, name: str) -> dict[str, str]:
    """Alias -> version number; empty without a registered model."""
    for model in store.client.search_registered_models(f"name = '{name}'"):
        return {alias: str(number) for alias, number in model.aliases.items()}
    return {}


def pick(store: Store, name: str, wanted: str) -> Any:
    """MLflow's version of that number or alias. Raises DataError that names what there is."""
    number = aliases(store, name).get(wanted, wanted)
    there = versions(store, name)
    for version in there:
        if str(version.version) == number:
            return version
    known = ", ".join([*aliases(store, name), *(str(v.version) for v in reversed(there))])
    raise DataError(
        f"{name} has no version '{wanted}'. "
        + (f"There are: {known}." if known else "`dvc repro` trains and registers students.")
    )


def held(store: Store, name: str, version: Any) -> list[str]:
    """The aliases that point to one of MLflow's versions."""
    number = str(version.version)
    return [alias for alias, holder in aliases(store, name).items() if holder == number]


def title(store: Store, name: str, version: Any) -> str:
    """`quip-student version 2 (champion)`."""
    found = held(store, name, version)
    return f"{name} version {version.version}" + (f" ({', '.join(found)})" if found else "")


def address(name: str, version: Any) -> str:
    return f"models:/{name}/{version.version}"


def model_folder(store: Store, name: str, version: Any) -> Path:
    """The folder of weights and tokenizer behind one of MLflow's versions, fetched if need be."""
    check_files(store, name, version)
    with current(store) as mlflow:
        fetched = Path(mlflow.artifacts.download_artifacts(address(name, version)), "artifacts")
    return next(path for path in fetched.iterdir() if path.is_dir())


def check_files(store: Store, name: str, version: Any) -> None:
    if not files_exist(store.client.get_model_version_download_uri(name, version.version)):
        raise DataError(f"{name} version {version.version}: its files are gone from the store.")


def load_student(store: Store, name: str, version: Any) -> Any:
    """The `student.Student` of one of MLflow's versions, ready to generate."""
    check_files(store, name, version)
    with current(store) as mlflow:
        loaded = mlflow.pyfunc.load_model(address(name, version))
    return loaded.unwrap_python_model().student


def files_exist(uri: str) -> bool:
    """False only for a folder of this machine that is gone; what a server holds is believed."""
    parts = urlsplit(uri)
    return parts.scheme != "file" or (Path(unquote(parts.path)) / "MLmodel").is_file()


def log_model(store: Store, student: Student, options: Mapping[str, int | float]) -> str:
    """Log the model folder with its serving code into the run; returns the logged model's id."""
    run = store.client.get_run(student.run_id)
    with current(store) as mlflow, mlflow.start_run(run_id=student.run_id):
        info = mlflow.pyfunc.log_model(
            name=student.arm,
            python_model=str(MODEL_CODE),
            artifacts={"model": str(student.folder.resolve())},
            # Left to itself MLflow imports everything to find out, and stumbles (torchvision).
            pip_requirements=requirements(),
        )
        # The type hints give the inputs and outputs; the options can only be added afterwards.
        mlflow.models.set_signature(info.model_uri, signature(options))
    # Logging opened the run again; its duration is that of the training.
    store.client.set_terminated(student.run_id, "FINISHED", run.info.end_time)
    return str(info.model_id)


def requirements() -> list[str]:
    return [f"{package}=={installed(package).partition('+')[0]}" for package in REQUIREMENTS]


def serving_options(sections: Mapping[str, Any]) -> dict[str, int | float]:
    """OPTIONS with the settings under which the student was judged, from section `respond`."""
    judged = sections.get("respond") or {}
    return {key: judged.get(key, value) for key, value in OPTIONS.items()}


def signature(options: Mapping[str, int | float]) -> Any:
    """list[str] -> list[str], with `options` as parameters and their defaults."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {int: "long", float: "double"}
    entries = [ParamSpec(key, kinds[type(value)], value) for key, value in options.items()]
    texts = Schema([ColSpec("string")])
    return ModelSignature(texts, texts, ParamSchema(entries))


def set_tags(store: Store, name: str, version: Version, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        store.client.set_model_version_tag(name, version.number, key, clean(value))


def set_aliases(store: Store, name: str, wanted: Mapping[str, Version | None]) -> None:
    """Point each alias to its version; None takes the alias away."""
    for alias, version in wanted.items():
        if version is None:
            store.client.delete_registered_model_alias(name, alias)
        else:
            store.client.set_registered_model_alias(name, alias, version.number)


def champion(store: Store, name: str) -> str | None:
    """The number of the champion when there is one whose files are there, else None."""
    number = aliases(store, name).get("champion")
    if number and files_exist(store.client.get_model_version_download_uri(name, number)):
        return number
    return None
