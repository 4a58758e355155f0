"""graded: reads one file of pairs that people graded, in any format of `quip.data.graded_pairs`.

Params `graded` names the files. A malformed row stops the stage with file and line; ties are
dropped and counted.

    python -m quip.stages.graded --name gold --file data/raw/gold.jsonl \
        --out data/graded/gold.jsonl --metrics data/metrics/graded_gold.json
"""

from __future__ import annotations

from collections.abc import Sequence

from quip.core.jsonl import write_json, write_rows
from quip.data import graded_pairs
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "name", "file", "out", "metrics")
    found = graded_pairs.read(args.file, args.name)
    counts = {"pairs": len(found.pairs), "ties": found.ties}
    write_rows(args.out, found.pairs)
    write_json(args.metrics, counts)
    stage.print_counts("graded", counts)


if __name__ == "__main__":
    stage.run(main)
