"""JSON lines and JSON documents: reading with errors by line and column, and atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from quip.runtime.errors import DataError


def read_json(path: str | Path) -> Any:
    """Read a JSON document, such as metrics. Raises DataError with line and column."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{path}: no such file. Run `dvc repro` (or `dvc pull`).") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg}). Run `dvc repro`.") from None


R = TypeVar("R", bound=BaseModel)


def read_rows(path: str | Path, model: type[R]) -> list[R]:
    """Read a JSONL file of `model` rows.

    Raises DataError naming the file, line and column when the file is missing, empty,
    not JSON or not of this row type.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file. Run `dvc repro` (or `dvc pull`) to make it.")
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(parse_row(line, model, f"{path}, line {number}"))
    if not rows:
        raise DataError(f"{path}: the file holds no rows.")
    return rows


def parse_row(line: str, model: type[R], where: str) -> R:
    """Parse one JSON object into `model`; DataError starts with `where`."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}, column {error.colno}: not JSON ({error.msg}).") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "row"
        raise DataError(f"{where}: field '{field}': {first['msg']}.") from None


def write_rows(path: str | Path, rows: Iterable[BaseModel]) -> int:
    """Write rows as JSONL, whole or not at all; returns their number."""
    count = 0
    with atomic(path) as handle:
        for row in rows:
            handle.write(row.model_dump_json() + "\n")
            count += 1
    return count


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON document, whole or not at all, keys in the order given."""
    with atomic(path) as handle:
        json.dump(value, handle, indent=2, ensure_ascii=False, allow_nan=False)
        handle.write("\n")


class atomic:
    """Atomic file writing: `with atomic(path) as handle` writes a temporary file beside `path`,
    syncs it and renames it into place.

    An exception leaves the old file unchanged and no temporary file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.handle = self.temporary.open("w", encoding="utf-8", newline="\n")
        return self.handle

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        try:
            if kind is None:
                self.handle.flush()
                os.fsync(self.handle.fileno())
            self.handle.close()
            if kind is None:
                os.replace(self.temporary, self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
