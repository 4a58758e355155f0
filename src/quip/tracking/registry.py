"""Registered model in MLflow: one version per trained student, identified by its weights' hash.

Registering the same student twice returns its version and changes nothing. Promotions move the
aliases `champion` and `challenger` and stay as tags of the registered model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from quip.runtime.errors import DataError
from quip.tracking.lineage import hash_file
from quip.tracking.mlflow_store import Store, mask_secrets, now_ms, use_store

PREFIX = "promotion."
"""Prefix of the registered model's tags `promotion.<milliseconds since 1970>`, one a promotion."""


def promote(
    store: Store,
    name: str,
    number: str,
    previous: str | None,
    why: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Make version `number` champion and `previous` challenger; record `why` and `details`."""
    entry = {"version": number, "over": previous, "why": why, **(details or {})}
    client = store.client
    client.set_registered_model_tag(name, f"{PREFIX}{now_ms()}", mask_secrets(json.dumps(entry)))
    client.set_model_version_tag(name, number, "promotion", mask_secrets(why))
    client.set_registered_model_alias(name, "champion", number)
    if previous:
        client.set_registered_model_alias(name, "challenger", previous)


def history(store: Store, name: str) -> list[tuple[int, dict[str, Any]]]:
    """(milliseconds since 1970, entry) of every promotion, oldest first."""
    for model in store.client.search_registered_models(f"name = '{name}'"):
        tags = {k.removeprefix(PREFIX): v for k, v in model.tags.items() if k.startswith(PREFIX)}
        return sorted((int(at), json.loads(value)) for at, value in tags.items())
    return []


def promotion_line(at: int, entry: Mapping[str, Any]) -> str:
    """One promotion as a line."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(at / 1000))
    over = f" over version {entry['over']}" if entry["over"] else ""
    return f"{when}  version {entry['version']}{over}: {entry['why']}"


MODEL_CODE = Path(__file__).parents[1] / "serving" / "pyfunc_model.py"
REQUIREMENTS = ("mlflow", "torch", "transformers", "safetensors")
HASH_TAG = "quip.model_sha256"
CODE_TAG = "quip.serving_code"
"""md5 of the serving code that a version carries a copy of: a copy from before the code's modules
were renamed does not load."""
SERVING_OPTIONS: dict[str, int | float] = {
    "num_return_sequences": 1,
    "temperature": 0.0,
    "top_p": 0.95,
    "seed": 0,
    "max_new_tokens": 40,
    "num_beams": 4,
}
"""Options of the served model and their defaults (see `paraphrase.paraphrases`)."""


@dataclass(frozen=True)
class TrainedStudent:
    """A trained student on disk: its arm, folder, MLflow run and model digest."""

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
    store: Store, name: str, student: TrainedStudent, options: Mapping[str, int | float]
) -> Version:
    """The version of `name` with these weights and today's serving code; logs the model in its
    training run if there is none. A version that replaces one with older code takes its aliases.

    `options` are the serving defaults. MLflow copies the folder into its artifact store (540 MB
    for a 135M student in float32; MLflow cannot link), so that a version outlives DVC's workspace.
    """
    found = find_registered(store, name, student)
    if found is not None:
        return found
    model = log_model(store, student, options)
    if not store.client.search_registered_models(f"name = '{name}'"):
        store.client.create_registered_model(name)
    # The registry reads the model from MLflow's global store, whatever the client's store is.
    with use_store(store):
        made = store.client.create_model_version(
            name,
            f"models:/{model}",
            student.run_id,
            {"arm": student.arm, HASH_TAG: student.sha256, CODE_TAG: serving_code()},
            model_id=model,
        )
    version = Version(str(made.version), student.run_id, model)
    take_aliases(store, name, student, version)
    return version


def take_aliases(store: Store, name: str, student: TrainedStudent, version: Version) -> None:
    """Point to `version` every alias of an older version with the same arm and weights."""
    older = [v for v in versions(store, name) if is_of(v, student) and v.version != version.number]
    held = [alias for old in older for alias in aliases_of(store, name, old)]
    set_aliases(store, name, dict.fromkeys(held, version))


def is_of(version: Any, student: TrainedStudent) -> bool:
    """Whether one of MLflow's versions is of this arm and these weights."""
    tags = version.tags
    return (tags.get("arm"), tags.get(HASH_TAG)) == (student.arm, student.sha256)


def serving_code() -> str:
    return hash_file(MODEL_CODE, "md5")


def find_registered(store: Store, name: str, student: TrainedStudent) -> Version | None:
    """The newest version of this arm, these weights and today's serving code whose files exist.

    Artifact addresses are absolute: after a move of the checkout the files are not found.
    """
    for version in versions(store, name):
        same = is_of(version, student) and version.tags.get(CODE_TAG) == serving_code()
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


def find_version(store: Store, name: str, wanted: str) -> Any:
    """MLflow's version with the number or alias `wanted`. Raises DataError with the known ones."""
    number = aliases(store, name).get(wanted, wanted)
    found = versions(store, name)
    for version in found:
        if str(version.version) == number:
            return version
    known = ", ".join([*aliases(store, name), *(str(v.version) for v in reversed(found))])
    raise DataError(
        f"{name} has no version '{wanted}'. "
        + (f"There are: {known}." if known else "`dvc repro` trains and registers students.")
    )


def aliases_of(store: Store, name: str, version: Any) -> list[str]:
    """The aliases of one of MLflow's versions."""
    number = str(version.version)
    return [alias for alias, holder in aliases(store, name).items() if holder == number]


def version_title(store: Store, name: str, version: Any) -> str:
    """`quip-student version 2 (champion)`."""
    found = aliases_of(store, name, version)
    return f"{name} version {version.version}" + (f" ({', '.join(found)})" if found else "")


def version_uri(name: str, version: Any) -> str:
    return f"models:/{name}/{version.version}"


def model_folder(store: Store, name: str, version: Any) -> Path:
    """The folder of weights and tokenizer of one of MLflow's versions; downloads it if needed."""
    check_files(store, name, version)
    with use_store(store) as mlflow:
        fetched = Path(mlflow.artifacts.download_artifacts(version_uri(name, version)), "artifacts")
    return next(path for path in fetched.iterdir() if path.is_dir())


def check_files(store: Store, name: str, version: Any) -> None:
    if not files_exist(store.client.get_model_version_download_uri(name, version.version)):
        raise DataError(
            f"{name} version {version.version}: its files are gone from the store. "
            "`dvc repro -f -s register` registers the students of this checkout anew."
        )


def load_student(store: Store, name: str, version: Any) -> Any:
    """Load the `student.Student` of one of MLflow's versions. Raises DataError when its files are
    gone."""
    check_files(store, name, version)
    with use_store(store) as mlflow:
        loaded = mlflow.pyfunc.load_model(version_uri(name, version))
    return loaded.unwrap_python_model().student


def files_exist(uri: str) -> bool:
    """Whether a model's files exist; True without a check for files that a server holds."""
    parts = urlsplit(uri)
    return parts.scheme != "file" or (Path(unquote(parts.path)) / "MLmodel").is_file()


def log_model(store: Store, student: TrainedStudent, options: Mapping[str, int | float]) -> str:
    """Log the model folder and its serving code into its run; returns the logged model's id."""
    run = store.client.get_run(student.run_id)
    with use_store(store) as mlflow, mlflow.start_run(run_id=student.run_id):
        info = mlflow.pyfunc.log_model(
            name=student.arm,
            python_model=str(MODEL_CODE),
            artifacts={"model": str(student.folder.resolve())},
            # MLflow's own inference of requirements imports everything and fails (torchvision).
            pip_requirements=requirements(),
        )
        # MLflow infers inputs and outputs from type hints; the options must be added afterwards.
        mlflow.models.set_signature(info.model_uri, signature(options))
    # Logging reopened the run; restore the end time of the training.
    store.client.set_terminated(student.run_id, "FINISHED", run.info.end_time)
    return str(info.model_id)


def requirements() -> list[str]:
    return [f"{package}=={package_version(package).partition('+')[0]}" for package in REQUIREMENTS]


def serving_options(sections: Mapping[str, Any]) -> dict[str, int | float]:
    """SERVING_OPTIONS with the values of section `respond`, under which the student was judged."""
    judged = sections.get("respond") or {}
    return {key: judged.get(key, value) for key, value in SERVING_OPTIONS.items()}


def signature(options: Mapping[str, int | float]) -> Any:
    """MLflow's signature list[str] -> list[str], with `options` as parameters and defaults."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {int: "long", float: "double"}
    entries = [ParamSpec(key, kinds[type(value)], value) for key, value in options.items()]
    texts = Schema([ColSpec("string")])
    return ModelSignature(texts, texts, ParamSchema(entries))


def set_tags(store: Store, name: str, version: Version, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        store.client.set_model_version_tag(name, version.number, key, mask_secrets(value))


def set_aliases(store: Store, name: str, wanted: Mapping[str, Version | None]) -> None:
    """Point each alias to its version; None deletes the alias."""
    for alias, version in wanted.items():
        if version is None:
            store.client.delete_registered_model_alias(name, alias)
        else:
            store.client.set_registered_model_alias(name, alias, version.number)


def champion_number(store: Store, name: str) -> str | None:
    """The champion's version number; None without a champion or when its files are gone."""
    number = aliases(store, name).get("champion")
    if number and files_exist(store.client.get_model_version_download_uri(name, number)):
        return number
    return None
