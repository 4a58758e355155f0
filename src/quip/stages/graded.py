"""graded: read one file of pairs that people graded, in any known form (`quip.graded`).

Params `graded` names the files. A malformed row stops the stage with file and line; ties are left
out and counted.

    python -m quip.stages.graded --name gold --file data/raw/gold.jsonl \
        --out data/graded/gold.jsonl --metrics data/metrics/graded_gold.json
"""

from __future__ import annotations

from collections.abc import Sequence

from quip import graded, stage
from quip.records import write_json, write_rows


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "name", "file", "out", "metrics")
    found = graded.read(args.file, args.name)
    counts = {"pairs": len(found.pairs), "ties": found.ties}
    write_rows(args.out, found.pairs)
    write_json(args.metrics, counts)
    stage.say("graded", counts)


if __name__ == "__main__":
    stage.run(main)
