"""Glossary: the definition of every number of the report, from reporting/glossary.yaml.

The report page shows the definitions; docs/evaluation.md contains them between two marks. To
update that page:

    python -m quip.reporting.glossary docs/evaluation.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

from quip.reporting.marked_block import rewrite_block

FILE = Path(__file__).parent / "glossary.yaml"
BLOCK = "glossary"
"""The name of the marks in docs/evaluation.md."""


def read_sections() -> list[dict[str, Any]]:
    """[{"section", "terms": [{"id", "term", "says", "formula"?, "code", "source"?}]}]."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def module_path(code: str) -> str:
    """The file of `code`, which names a module of src/quip or a function in one."""
    module = code.partition(".")[0]
    return f"src/quip/{module}.py"


def markdown() -> str:
    """The definitions as Markdown for docs/evaluation.md, without the marks."""
    parts = []
    for section in read_sections():
        parts.append(f"### {section['section']}")
        parts += [entry_markdown(term) for term in section["terms"]]
    return "\n\n".join(parts)


def entry_markdown(term: dict[str, Any]) -> str:
    """Name, meaning, formula, code and source of one number, as Markdown."""
    lines = [f"#### {term['term']}", wrap(term["says"])]
    if "formula" in term:
        lines.append(f"```text\n{wrap(term['formula'])}\n```")
    code = f"Code: [{term['code'].replace('/', '.')}](../{module_path(term['code'])})."
    source = f" Source: {term['source']}." if "source" in term else ""
    return "\n\n".join([*lines, wrap(code + source)])


def wrap(text: str) -> str:
    return fill(text, 100, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    rewrite_block(Path(sys.argv[1]), BLOCK, markdown())
