"""Every number of the report, defined once, in reporting/glossary.yaml.

The report page shows the definitions; docs/evaluation.md holds them between two marks. To write
them there anew:

    python -m quip.reporting.glossary docs/evaluation.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from quip.reporting.marked_block import rewrite

FILE = Path(__file__).parent / "glossary.yaml"
BLOCK = "glossary"
"""The name of the marks in docs/evaluation.md."""


def sections() -> list[dict[str, Any]]:
    """[{"section", "terms": [{"id", "term", "says", "formula"?, "code", "source"?}]}]."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def path_of(code: str) -> str:
    """The file of `code`, a module of src/quip and perhaps a function in it."""
    module = code.partition(".")[0]
    return f"src/quip/{module}.py"


def markdown() -> str:
    """The definitions as docs/evaluation.md shows them, without the marks."""
    parts = []
    for section in sections():
        parts.append(f"### {section['section']}")
        parts += [entry(term) for term in section["terms"]]
    return "\n\n".join(parts)


def entry(term: dict[str, Any]) -> str:
    """Name, meaning, formula, code and source of one number."""
    lines = [f"#### {term['term']}", wrapped(term["says"])]
    if "formula" in term:
        lines.append(f"```text\n{wrapped(term['formula'])}\n```")
    code = f"Code: [{term['code'].replace('/', '.')}](../{path_of(term['code'])})."
    source = f" Source: {term['source']}." if "source" in term else ""
    return "\n\n".join([*lines, wrapped(code + source)])


def wrapped(text: str) -> str:
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]), BLOCK, markdown())
