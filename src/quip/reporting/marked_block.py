"""Parts of pages that a command writes, between two marks: `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

from quip.core.jsonl import atomic
from quip.runtime.errors import DataError


def marked(name: str, body: str) -> str:
    """`body` with its marks, each on a line of its own."""
    return f"<!-- {name} -->\n{body}\n<!-- /{name} -->\n"


def replaced(page: str, name: str, body: str) -> str:
    """`page` with `body` between the marks of `name`. Raises DataError unless they stand once."""
    block = re.compile(rf"^<!-- {name} -->\n.*?^<!-- /{name} -->\n", re.DOTALL | re.MULTILINE)
    if len(block.findall(page)) != 1:
        raise DataError(f"want one block between <!-- {name} --> and <!-- /{name} --> in the page.")
    return block.sub(lambda _: marked(name, body), page)


def rewrite(file: Path, name: str, body: str) -> None:
    """Put `body` between the marks of `name` in `file`, whole or not at all."""
    page = replaced(file.read_text(encoding="utf-8"), name, body)
    with atomic(file) as handle:
        handle.write(page)
