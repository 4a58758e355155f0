"""sft: trains the warm start, by imitation of the teacher's paraphrases (the paper's FT-WS).

    python -m quip.stages.sft --pairs data/imitation/pairs.jsonl \
        --references data/imitation/references.jsonl --model models/sft \
        --curve data/curves/sft.csv --run data/runs/sft.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.core.jsonl import read_rows
from quip.core.params import load
from quip.core.records import Reference, TrainingPair
from quip.runtime import stage
from quip.training import distributed
from quip.training.sft import Imitation, imitate


class Params(Imitation):
    base: str


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "pairs", "references", "model", "curve", "run")
    if distributed.launch_processes("quip.stages.sft", argv):
        return
    params = load("sft", Params)
    pairs = read_rows(args.pairs, TrainingPair)
    held_out = [
        TrainingPair(input=row.input, literal=row.literal, paraphrase=row.paraphrases[0])
        for row in read_rows(args.references, Reference)
        if row.split == "val"
    ]
    imitate(
        "sft",
        params,
        base=params.base,
        pairs=pairs,
        held_out=held_out,
        data={"pairs": Path(args.pairs)},
        out=Path(args.model),
        curve=Path(args.curve),
        run_file=Path(args.run),
    )


if __name__ == "__main__":
    stage.run(main)
