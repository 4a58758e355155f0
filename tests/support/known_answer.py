"""Run test_known_answer.py; write what it measured into docs/training.md and its figure.

python tests/support/known_answer.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from quip.reporting import svg_plots
from quip.reporting.marked_block import rewrite_block

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
ARMS = ("ft", "sd", "brio", "dpo", "brio_dpo")
BLOCK = "known_answer"
"""The name of the marks in docs/training.md."""

PAGE = """\
Does the loop learn what the critic wants? For real humor nobody knows what a student should have
learned. So `tests/integration/test_known_answer.py` builds a world in which everybody does, and
runs the pipeline's own stages in it. The teacher is a script that says one text in three with a
comparison ("the baker lost the tent like a goose"). The critic is a script that likes comparisons
and texts about the same person, leans to the first text shown by 3.0 and likes each word more by
0.9 (log-odds). The student is a small BART of random weights. `python
tests/support/known_answer.py` writes this section.

### Every arm that learns from the critic learns its taste

![Win-tie rate of each arm against the teacher](images/known_answer.svg)

| arm | win-tie rate, % | score (win + tie/2), % | answers with a comparison, % | words |
|---|---|---|---|---|
{arms}

`ft` is more imitation without the critic: it stays at the teacher's one in three. {n} test inputs,
95 % intervals by bootstrap.

### More rounds in the same epochs

| arm | score after one round, % | after two, % |
|---|---|---|
{rounds}

After one round there is little left to learn here; two are no worse within the interval.

### The audit finds the biases that were planted

100 gold pairs, of which the lean turns 40 and the taste for length spoils 40.

| debias.per_word | position bias: planted, found | length bias | agreement |
|---|---|---|---|
{audit}

### Length

Mean words of the test answers: warm start {words[0]:.2f}; `dpo` with the length correction and the
length filter {words[1]:.2f}; without both {words[2]:.2f}."""


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record.xml")
        options = [
            "-q",
            "-m",
            "slow",
            f"--junitxml={record}",
            str(TESTS / "integration" / "test_known_answer.py"),
        ]
        if code := pytest.main(options):
            return int(code)
        found = properties(record)
    arms = {arm: found[arm][0] for arm in ARMS}
    rows = [(arm, arms[arm]["wtr"], *arms[arm]["ci95"]) for arm in ARMS]
    svg = svg_plots.intervals("known_answer", rows, "win-tie rate against the teacher")
    (DOCS / "images" / "known_answer.svg").write_text(svg, encoding="utf-8")
    page = PAGE.format(
        n=arms["ft"]["n"],
        arms="\n".join(arm_line(arm, cell) for arm, cell in arms.items()),
        rounds="\n".join(f"| `{a}` | {percent(x)} | {percent(y)} |" for a, x, y in found["rounds"]),
        audit="\n".join(audit_line(*row) for row in found["audit"]),
        words=found["words"][0],
    )
    rewrite_block(DOCS / "training.md", BLOCK, page)
    return 0


def properties(record: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for node in xml.parse(record).iter("property"):
        found[node.attrib["name"]].append(json.loads(node.attrib["value"]))
    return found


def arm_line(arm: str, cell: dict[str, Any]) -> str:
    cells = [
        f"`{arm}`",
        f"{percent(cell['wtr'])} {ends(cell['ci95'])}",
        f"{percent(cell['score'])} {ends(cell['score_ci95'])}",
        percent(cell["comparison"]),
        f"{cell['words']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def audit_line(per_word: float, planted: list[float], found: list[float]) -> str:
    position, length, agreement, *interval = found
    return (
        f"| {per_word} | {planted[0]:.2f}, {position:.2f} | {planted[1]:.2f}, {length:.2f} | "
        f"{planted[2]:.2f}, {agreement:.2f} [{interval[0]:.2f}, {interval[1]:.2f}] |"
    )


def percent(value: float) -> str:
    return f"{100 * value:.0f}"


def ends(interval: list[float]) -> str:
    return f"[{percent(interval[0])}, {percent(interval[1])}]"


if __name__ == "__main__":
    sys.exit(main())
