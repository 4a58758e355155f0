"""candidates: samples k texts of the student for each input.

Candidates of training inputs go to the critique, those of some test inputs to the best-of-n
baseline.

    python -m quip.stages.candidates --model models/sft --prepared data/prepared \
        --out data/candidates.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from quip.core.jsonl import read_rows, write_rows
from quip.core.params import Section, load
from quip.core.records import Candidate, LiteralText, Split
from quip.models.hardware import Precision
from quip.runtime import stage
from quip.training import distributed


class Params(Section):
    """`compare` is read by `critique`. Diverse beam search is not offered: docs/training.md."""

    method: Literal["nucleus"]
    k: int
    compare: int
    best_of: int
    best_of_inputs: int
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    precision: Precision


def main(argv: Sequence[str] | None = None) -> None:
    from quip.core import seeds
    from quip.models import generation, student

    args = stage.arguments(__doc__, argv, "model", "prepared", "out")
    if distributed.launch_processes("quip.stages.candidates", argv):
        return
    params = load("candidates", Params)
    slots = plan_samples(Path(args.prepared), params)
    shard = distributed.local_shard(slots)
    found = generation.sample(
        student.load(args.model, distributed.precision(params.precision)),
        [row.text for _, row, _ in shard],
        [seeds.seed_of(params.seed, row.id, number) for _, row, number in shard],
        temperature=params.temperature,
        top_p=params.top_p,
        max_new_tokens=params.max_new_tokens,
    )
    texts = distributed.gather(found)
    distributed.leave()
    if not distributed.is_first():
        return
    rows = [
        Candidate(input=row.id, split=split, literal=row.text, sample=number, text=text)
        for (split, row, number), text in zip(slots, texts, strict=True)
    ]
    write_rows(args.out, rows)
    empty = sum(not row.text for row in rows)
    stage.print_counts(
        "candidates", {"inputs": len({r.input for r in rows}), "samples": len(rows), "empty": empty}
    )


def plan_samples(prepared: Path, params: Params) -> list[tuple[Split, LiteralText, int]]:
    """Every sample to draw: (split, input, sample number)."""
    train = read_rows(prepared / "train.jsonl", LiteralText)
    test = read_rows(prepared / "test.jsonl", LiteralText)[: params.best_of_inputs]
    counts: list[tuple[Split, list[LiteralText], int]] = [
        ("train", train, params.k),
        ("test", test, params.best_of),
    ]
    return [(split, row, n) for split, rows, k in counts for row in rows for n in range(k)]


if __name__ == "__main__":
    stage.run(main)
