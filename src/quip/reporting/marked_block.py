"""Marked blocks of pages, written by commands between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

from quip.core.jsonl import atomic
from quip.runtime.errors import DataError


def add_marks(name: str, body: str) -> str:
    """`body` between the two marks of `name`, each on a line of its own."""
    return f"<!-- {name} -->\n{body}\n<!-- /{name} -->\n"


def replace_block(page: str, name: str, body: str) -> str:
    """`page` with `body` between the marks of `name`. Raises DataError unless it has one block."""
    block = re.compile(rf"^<!-- {name} -->\n.*?^<!-- /{name} -->\n", re.DOTALL | re.MULTILINE)
    if len(block.findall(page)) != 1:
        raise DataError(f"want one block between <!-- {name} --> and <!-- /{name} --> in the page.")
    return block.sub(lambda _: add_marks(name, body), page)


def rewrite_block(file: Path, name: str, body: str) -> None:
    """Write `body` between the marks of `name` in `file`, atomically. Raises DataError as
    `replace_block` does."""
    page = replace_block(file.read_text(encoding="utf-8"), name, body)
    with atomic(file) as handle:
        handle.write(page)
