"""Sections of params.yaml, each read into the frozen model of its stage.

A stage declares `class Params(Section)` and calls `load("teacher", Params)`. Unknown, missing and
ill-typed keys are refused by name, with the nearest known key.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from quip.runtime.errors import ParamsError

PARAMS_FILE = Path("params.yaml")


class Section(BaseModel):
    """Base of every params section: frozen, strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


S = TypeVar("S", bound=BaseModel)


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole file as a mapping. Raises ParamsError with line and column when it is not YAML."""
    if not path.is_file():
        raise ParamsError(f"{path}: no such file. Run from the project's root.")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ParamsError(f"{path}{where}: not YAML ({error.problem}).") from None
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: expected sections such as 'teacher:', found no mapping.")
    return value


def load(section: str, model: type[S], path: Path = PARAMS_FILE) -> S:
    """Read one section of params.yaml into `model`. Raises ParamsError."""
    params = read_params(path)
    if section not in params:
        raise ParamsError(f"{path}: section '{section}' is missing.{did_you_mean(section, params)}")
    return validate(params[section], model, section, path)


def validate(value: Any, model: type[S], section: str, path: Path = PARAMS_FILE) -> S:
    """Validate `value` as `model`. Raises ParamsError with one line about the first mistake."""
    try:
        return model.model_validate(value if value is not None else {})
    except ValidationError as error:
        raise ParamsError(f"{path}: {describe(error, model, section)}") from None


def describe(error: ValidationError, model: type[BaseModel], section: str) -> str:
    """One line about the first mistake; an unknown key comes first, since a typo also makes another
    key missing."""
    mistakes = error.errors()
    first = next((m for m in mistakes if m["type"] == "extra_forbidden"), mistakes[0])
    parts = [section, *(str(part) for part in first["loc"])]
    key = ".".join(parts)
    if first["type"] == "extra_forbidden":
        known = sorted(fields_at(model, first["loc"][:-1]))
        listing = f" Known keys: {', '.join(known)}." if known else ""
        return f"unknown key '{key}'.{listing}{did_you_mean(parts[-1], known)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing."
    return f"key '{key}' is {first['input']!r}: {first['msg']}."


def fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the nested model at `location` in `model`."""
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        found = nested_models(model.model_fields[part].annotation)
        if not found:
            return []
        model = found[0]
    return list(model.model_fields)


def nested_models(annotation: Any) -> list[type[BaseModel]]:
    """The models in a type annotation, such as [Adapter] in `Adapter | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in nested_models(part)]


def did_you_mean(word: str, known: Any) -> str:
    """ " Did you mean 'KEY'?" with the nearest known word; "" without a near one."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
