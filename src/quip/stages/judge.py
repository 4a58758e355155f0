"""judge: every judge compares an arm's answers with the teacher's, in both orders.

    python -m quip.stages.judge --arm dpo --responses data/responses/dpo.jsonl \
        --references data/imitation/references.jsonl --reward models/reward \
        --out data/verdicts/dpo.jsonl --calls data/calls/judge_dpo.jsonl \
        --metrics data/metrics/judge_dpo.json
"""

from __future__ import annotations

from collections.abc import Sequence

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import load
from quip.core.records import Reference, Response
from quip.critics.comparison import Comparison
from quip.critics.judges import JudgeParams, ask_judges
from quip.llm.call_outputs import record_calls
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    names = ("arm", "responses", "references", "reward", "out", "calls", "metrics")
    args = stage.arguments(__doc__, argv, *names)
    params = load("judge", JudgeParams)
    teacher = {row.input: row.paraphrases[0] for row in read_rows(args.references, Reference)}
    responses = [r for r in read_rows(args.responses, Response) if r.split in params.splits]
    pairs = [
        Comparison(r.input, r.split, r.literal, args.arm, "teacher", r.text, teacher[r.input])
        for r in responses
        if r.input in teacher
    ]
    with record_calls(args.calls):
        rows, spent = ask_judges(params, args.reward, pairs, f"judge {args.arm}")
    write_rows(args.out, rows)
    missing = len(responses) - len(pairs)
    counts = {"verdicts": len(rows), "without_reference": missing}
    stage.print_counts("judge", counts)
    write_json(args.metrics, {**counts, "judges": spent})


if __name__ == "__main__":
    stage.run(main)
