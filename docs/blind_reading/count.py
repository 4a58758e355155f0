"""Counts a blind reading: what a reader who saw only sheet.txt made of each writer's texts.

    python docs/blind_reading/count.py

grades.jsonl holds [faithful, fluent, funny] of each lettered text, key.json who wrote it. A text is
good when it is faithful, fluent and funny of 2 or 3 (of 3). The reader is a large model, no person.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import combinations
from pathlib import Path

from quip.evaluation.metrics.bootstrap import rounded_interval

HERE = Path(__file__).parent
Grade = tuple[int, int, int]


def worth(grade: Grade) -> float:
    """Funny counts only in a text that is faithful and fluent."""
    faithful, fluent, funny = grade
    return funny if faithful and fluent else funny / 2 - 1


def read() -> dict[str, list[Grade]]:
    """Writer -> the grades of its texts, in the order of the items."""
    key = json.loads((HERE / "key.json").read_text(encoding="utf-8"))
    found: dict[str, list[Grade]] = defaultdict(list)
    for line in (HERE / "grades.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for letter, writer in key[row["item"] - 1].items():
            found[writer].append(tuple(row[letter]))
    return found


def main() -> None:
    writers = read()
    for writer, grades in sorted(writers.items()):
        faithful, fluent, funny = (sum(g[i] for g in grades) / len(grades) for i in range(3))
        good = sum(g[0] and g[1] and g[2] >= 2 for g in grades) / len(grades)
        print(
            f"{writer:<8} n {len(grades)}  faithful {faithful:.2f}  fluent {fluent:.2f}  "
            f"funny {funny:.2f}  good {good:.2f}"
        )
    for a, b in combinations(sorted(writers), 2):
        gaps = [worth(x) - worth(y) for x, y in zip(writers[a], writers[b], strict=True)]
        points = [1.0 if gap > 0 else 0.5 if gap == 0 else 0.0 for gap in gaps]
        low, high = rounded_interval(points, 10_000, 1)
        print(f"{a} over {b}: score {sum(points) / len(points):.2f} [{low:.2f}, {high:.2f}]")


if __name__ == "__main__":
    main()
