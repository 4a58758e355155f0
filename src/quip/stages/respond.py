"""respond: a trained student answers the evaluation inputs (beam search, as in the paper).

    python -m quip.stages.respond --model models/dpo --prepared data/prepared \
        --out data/responses/dpo.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.core.jsonl import read_rows, write_rows
from quip.core.params import Section, load
from quip.core.records import LiteralText, Response, Split
from quip.models.hardware import Precision
from quip.runtime import stage
from quip.training import distributed


class Params(Section):
    splits: list[Split]
    num_beams: int
    max_new_tokens: int
    precision: Precision


def main(argv: Sequence[str] | None = None) -> None:
    from quip.models import generation, student

    args = stage.arguments(__doc__, argv, "model", "prepared", "out")
    if distributed.launch_processes("quip.stages.respond", argv):
        return
    params = load("respond", Params)
    inputs = [
        (split, row)
        for split in params.splits
        for row in read_rows(Path(args.prepared) / f"{split}.jsonl", LiteralText)
    ]
    found = generation.respond(
        student.load(args.model, distributed.precision(params.precision)),
        [row.text for _, row in distributed.local_shard(inputs)],
        max_new_tokens=params.max_new_tokens,
        num_beams=params.num_beams,
    )
    texts = distributed.gather(found)
    distributed.leave()
    if not distributed.is_first():
        return
    rows = [
        Response(input=row.id, split=split, literal=row.text, text=text)
        for (split, row), text in zip(inputs, texts, strict=True)
    ]
    write_rows(args.out, rows)
    stage.print_counts("respond", {"inputs": len(rows), "empty": sum(not row.text for row in rows)})


if __name__ == "__main__":
    stage.run(main)
