"""Every number of the report, defined once, in report/glossary.yaml.

The page shows the definitions; docs/METRICS.md is written from them:

    python -m quip.reporting.glossary > docs/METRICS.md
"""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

import yaml

FILE = Path(__file__).parent / "glossary.yaml"
HEAD = """\
# Metrics: every number, its formula and its code

Written by `python -m quip.reporting.glossary > docs/METRICS.md` from
[src/quip/reporting/glossary.yaml](../src/quip/reporting/glossary.yaml), which the report shows as
well. The results of a run are in `data/metrics/wtr.json` (verdicts and texts) and
`data/metrics/safety.json`; limits and settings are in `params.yaml`, sections `evaluate`, `debias`,
`alarms` and `safety`.

All-tie, all-loss and one-row inputs give numbers; an empty input, or one without a single readable
verdict, is refused with a line that says what to do. No number is ever NaN.
"""


def sections() -> list[dict[str, Any]]:
    """[{"section", "terms": [{"id", "term", "says", "formula"?, "code", "source"?}]}]."""
    found: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def path_of(code: str) -> str:
    """The file of `code`, a module of src/quip and perhaps a function in it."""
    module = code.partition(".")[0]
    return f"src/quip/{module}.py"


def markdown() -> str:
    """docs/METRICS.md."""
    parts = [HEAD]
    for section in sections():
        parts.append(f"\n## {section['section']}\n")
        parts += [entry(term) for term in section["terms"]]
    return "".join(parts)


def entry(term: dict[str, Any]) -> str:
    lines = [f"\n### {term['term']}\n", f"{fill(term['says'], 100)}\n"]
    if "formula" in term:
        lines.append(f"```text\n{term['formula']}\n```\n")
    file = path_of(term["code"])
    code = f"[{term['code'].replace('/', '.')}](../{file})"
    source = f" Source: {term['source']}." if "source" in term else ""
    lines.append(f"Code: {code}.{source}\n")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
