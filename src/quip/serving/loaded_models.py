"""The students that `quip serve` speaks with: registered versions, or folders of this checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quip.core.params import read_params
from quip.runtime.errors import DataError
from quip.serving import paraphrase
from quip.tracking import mlflow_store, registry, runs

USUAL = ("champion", "challenger")


@dataclass(frozen=True)
class Voice:
    """A loaded student and the name by which clients ask for it (`quip-student@champion`)."""

    name: str
    label: str
    """Short, without spaces: `v3` or `sft`."""
    student: Any
    max_new_tokens: int
    num_beams: int


def gather(wanted: Sequence[str]) -> list[Voice]:
    """The voices of `wanted` (numbers, aliases or arms); by default champion and challenger, or,
    without a registry, the arms of params.yaml. Raises DataError when there is none."""
    file = mlflow_store.database_file()
    if file is None or file.exists():  # opening it would create it
        try:
            with runs.require_store() as store:
                found = from_registry(store, wanted)
        except mlflow_store.TrackingError as error:
            print(f"quip: {error} Using the model folders.", file=sys.stderr)
            found = []
        if found:
            return found
    arms = wanted or [a for a in paraphrase.recorded_champion() or read_params().get("arms") or []]
    return [from_folder(arm) for arm in arms]


def from_registry(store: mlflow_store.Store, wanted: Sequence[str]) -> list[Voice]:
    name = paraphrase.model_name()
    held = registry.aliases(store, name)
    voices = []
    for spec in wanted or [alias for alias in USUAL if alias in held]:
        if paraphrase.is_trained(spec):
            voices.append(from_folder(spec))
            continue
        version = registry.find_version(store, name, spec)
        student = registry.load_student(store, name, version)
        mark = f"@{spec}" if spec in held else f"/{spec}"
        voices.append(voice(f"{name}{mark}", f"v{version.version}", student))
    return voices


def from_folder(arm: str) -> Voice:
    from quip.models import student

    if not paraphrase.is_trained(arm):
        raise DataError(
            f"there is no version or trained arm '{arm}' to serve. `dvc repro` makes students, "
            "`dvc pull` fetches them, `quip versions` lists those that are registered."
        )
    return voice(f"{paraphrase.model_name()}/{arm}", arm, student.load(paraphrase.MODELS / arm))


def voice(name: str, label: str, student: Any) -> Voice:
    options = registry.serving_options(read_params())
    return Voice(name, label, student, int(options["max_new_tokens"]), int(options["num_beams"]))
