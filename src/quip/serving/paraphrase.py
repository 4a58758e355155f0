"""Paraphrases from a trained student: the registered champion or a folder of this checkout.

`paraphrases` is what the registered model and `quip say` both do, so they answer alike.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.core.params import read_params
from quip.runtime.errors import DataError
from quip.tracking import mlflow_store, runs
from quip.tracking.registry import champion_number, serving_options

MODELS = Path("models")
REGISTRY = Path("data/registry.json")

Speak = Callable[[str, Mapping[str, Any]], list[str]]


SAMPLING_TEMPERATURE = 0.9


def paraphrases(
    student: Any,
    literals: Sequence[str],
    *,
    num_return_sequences: int,
    temperature: float,
    top_p: float,
    seed: int | Sequence[int],
    max_new_tokens: int,
    num_beams: int,
) -> list[str]:
    """`num_return_sequences` texts per literal, those of one literal together.

    At temperature 0 the first of them is the beam-search answer by which the student was judged,
    and the others are samples; above 0 all are samples. The same seed gives the same texts; it
    is one for all literals or one for each.
    """
    from quip.core.seeds import seed_of
    from quip.models.generation import respond, sample

    rows, columns = list(literals), []
    seeds = [seed] * len(rows) if isinstance(seed, int) else list(seed)
    if temperature == 0:
        judged = respond(student, rows, max_new_tokens=max_new_tokens, num_beams=num_beams)
        columns.append(judged)
    for number in range(len(columns), num_return_sequences):
        drawn = sample(
            student,
            rows,
            [seed_of(own, row, number) for own, row in zip(seeds, rows, strict=True)],
            temperature=temperature or SAMPLING_TEMPERATURE,
            top_p=top_p,
            max_new_tokens=max_new_tokens,
        )
        columns.append(drawn)
    return [text for row in zip(*columns, strict=True) for text in row]


def speaker(arm: str | None) -> Speak:
    """A function of (text, options) to paraphrases; options are those of `speak.paraphrases`.

    Raises DataError when there is neither a registered champion nor a model folder.
    """
    gentle()
    uri = None if arm else registered()
    return from_registry(uri) if uri else from_folder(folder_of(arm))


def gentle() -> None:
    """Let torch's threads sleep while they wait; call it before torch is loaded.

    By default they spin, and on a machine that does something else as well one sentence takes
    minutes instead of seconds.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def registered() -> str | None:
    """The champion's address; None when the store is not there, unusable or has none."""
    file = mlflow_store.database_file()
    if file is not None and not file.exists():
        return None  # opening it would create it, which takes seconds
    try:
        with runs.require_store() as store:
            name = model_name()
            return f"models:/{name}@champion" if champion_number(store, name) else None
    except mlflow_store.TrackingError as error:
        print(f"quip: {error} Using the model folder.", file=sys.stderr)
        return None


def model_name() -> str:
    return str((read_params().get("register") or {}).get("name", "quip-student"))


def folder_of(arm: str | None) -> Path:
    """models/<arm>; without an arm the registered champion's, else that of the last arm."""
    wanted = [arm] if arm else [*recorded_champion(), *reversed(read_params().get("arms") or [])]
    for name in wanted:
        if is_trained(name):
            return MODELS / name
    found = sorted({str(path.parent.name) for path in MODELS.glob("*/*.safetensors")})
    there = f" Trained here: {', '.join(found)}." if found else ""
    what = f"model '{arm}'" if arm else "champion in the registry and no trained model in models/"
    raise DataError(f"there is no {what}.{there} `dvc repro` makes it, `dvc pull` fetches it.")


def is_trained(arm: str) -> bool:
    return any((MODELS / arm).glob("*.safetensors"))


def recorded_champion() -> list[str]:
    if not REGISTRY.is_file():
        return []
    entries = json.loads(REGISTRY.read_text(encoding="utf-8"))
    return [arm for arm, entry in entries.items() if "champion" in entry.get("aliases", [])]


def from_registry(uri: str) -> Speak:
    with runs.require_store() as store, mlflow_store.use_store(store) as mlflow:
        quiet()
        model = mlflow.pyfunc.load_model(uri)
    return lambda text, options: model.predict([text], params=dict(options))


def from_folder(folder: Path) -> Speak:
    quiet()
    from quip.models import student

    loaded, defaults = student.load(folder), serving_options(read_params())
    return lambda text, options: paraphrases(loaded, [text], **{**defaults, **options})


def quiet() -> None:
    """No progress bars around a single sentence."""
    from transformers.utils import logging

    logging.disable_progress_bar()
