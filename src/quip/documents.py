"""JSON documents such as metrics, read with an error that says where and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quip.errors import DataError


def read_json(path: str | Path) -> Any:
    """A JSON document, such as metrics. Raises DataError with line and column."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"{path}: no such file. Run `dvc repro` (or `dvc pull`).") from None
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}, column {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg}). Run `dvc repro`.") from None
