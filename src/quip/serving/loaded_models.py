"""Loaded students of `quip serve`: registered versions, or model folders of this checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quip.core.params import read_params
from quip.runtime.errors import DataError
from quip.serving import paraphrase
from quip.tracking import mlflow_store, registry, runs

DEFAULT_ALIASES = ("champion", "challenger")


@dataclass(frozen=True)
class LoadedModel:
    """A loaded student and its name in the API (`quip-student@champion`)."""

    name: str
    label: str
    """Short, without spaces: `v3` or `sft`."""
    student: Any
    max_new_tokens: int
    num_beams: int


def load_models(wanted: Sequence[str]) -> list[LoadedModel]:
    """Load the models `wanted` (version numbers, aliases or arms).

    The default is champion and challenger or, without a registry, the arms of params.yaml. Raises
    DataError for a model that does not exist.
    """
    file = mlflow_store.database_file()
    if file is None or file.exists():  # opening it would create it
        try:
            with runs.require_store() as store:
                found = load_from_registry(store, wanted)
        except mlflow_store.TrackingError as error:
            print(f"quip: {error} Using the model folders.", file=sys.stderr)
            found = []
        if found:
            return found
    arms = wanted or [a for a in paraphrase.recorded_champion() or read_params().get("arms") or []]
    return [load_from_folder(arm) for arm in arms]


def load_from_registry(store: mlflow_store.Store, wanted: Sequence[str]) -> list[LoadedModel]:
    name = paraphrase.model_name()
    held = registry.aliases(store, name)
    models = []
    for spec in wanted or [alias for alias in DEFAULT_ALIASES if alias in held]:
        if paraphrase.is_trained(spec):
            models.append(load_from_folder(spec))
            continue
        version = registry.find_version(store, name, spec)
        student = registry.load_student(store, name, version)
        mark = f"@{spec}" if spec in held else f"/{spec}"
        models.append(make_model(f"{name}{mark}", f"v{version.version}", student))
    return models


def load_from_folder(arm: str) -> LoadedModel:
    from quip.models import student

    if not paraphrase.is_trained(arm):
        raise DataError(
            f"there is no version or trained arm '{arm}' to serve. `dvc repro` makes students, "
            "`dvc pull` fetches them, `quip versions` lists those that are registered."
        )
    return make_model(
        f"{paraphrase.model_name()}/{arm}", arm, student.load(paraphrase.MODELS / arm)
    )


def make_model(name: str, label: str, student: Any) -> LoadedModel:
    options = registry.serving_options(read_params())
    return LoadedModel(
        name, label, student, int(options["max_new_tokens"]), int(options["num_beams"])
    )
