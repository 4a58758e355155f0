"""Paraphrases from a trained student: the registered champion or a folder of this checkout.

The registered model, `quip serve` and `quip say` all call `paraphrases`, so that they answer alike.
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

Paraphrase = Callable[[str, Mapping[str, Any]], list[str]]


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
    """`num_return_sequences` texts per literal, in the order of the literals.

    At temperature 0 the first text is the beam-search answer by which the student was judged, and
    the others are samples; above 0 all are samples. `seed` is one for all literals or one for
    each; the same seed gives the same texts.
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


def load_paraphraser(arm: str | None) -> Paraphrase:
    """Load a student; returns a function (text, options) -> paraphrases.

    The options are those of `paraphrases`. Without an `arm` the registered champion is used, else
    the model folder. Raises DataError when there is neither.
    """
    use_passive_threads()
    uri = None if arm else champion_uri()
    return load_from_registry(uri) if uri else load_from_folder(arm_folder(arm))


def use_passive_threads() -> None:
    """Let torch's threads sleep while they wait; call this before torch is imported.

    By default they spin, so that on a busy machine one sentence takes minutes instead of seconds.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def champion_uri() -> str | None:
    """The champion's URI in MLflow; None when the store is missing or unusable or has no
    champion."""
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


def arm_folder(arm: str | None) -> Path:
    """models/<arm>; without an arm the folder of the recorded champion, else of the last trained
    arm. Raises DataError when no such folder holds weights."""
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
    """The champion's arm by data/registry.json; empty when it is not known."""
    if not REGISTRY.is_file():
        return []
    entries = json.loads(REGISTRY.read_text(encoding="utf-8"))
    return [arm for arm, entry in entries.items() if "champion" in entry.get("aliases", [])]


def load_from_registry(uri: str) -> Paraphrase:
    with runs.require_store() as store, mlflow_store.use_store(store) as mlflow:
        hide_progress_bars()
        model = mlflow.pyfunc.load_model(uri)
    return lambda text, options: model.predict([text], params=dict(options))


def load_from_folder(folder: Path) -> Paraphrase:
    hide_progress_bars()
    from quip.models import student

    loaded, defaults = student.load(folder), serving_options(read_params())
    return lambda text, options: paraphrases(loaded, [text], **{**defaults, **options})


def hide_progress_bars() -> None:
    """Turn off transformers' progress bars, which would surround a single sentence."""
    from transformers.utils import logging

    logging.disable_progress_bar()
