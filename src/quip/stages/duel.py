"""duel: the judges compare every two arms on the test inputs.

Endpoints compare on the first `judge.duel_inputs` inputs, the learned critic on all.

    python -m quip.stages.duel --responses data/responses --reward models/reward \
        --out data/verdicts/duel.jsonl --calls data/calls/duel.jsonl \
        --metrics data/metrics/duel.json
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import load, read_params
from quip.core.records import Response
from quip.critics.comparison import Comparison
from quip.critics.judges import JudgeAnswers, JudgeParams, ask_judges
from quip.llm.call_outputs import record_calls
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "responses", "reward", "out", "calls", "metrics")
    params, arms = load("judge", JudgeParams), read_params()["arms"]
    texts = {
        arm: [
            row
            for row in read_rows(Path(args.responses) / f"{arm}.jsonl", Response)
            if row.split == "test"
        ]
        for arm in arms
    }
    pairs = [
        Comparison(new.input, new.split, new.literal, later, earlier, new.text, old.text)
        for earlier, later in combinations(arms, 2)
        for new, old in zip(texts[later], texts[earlier], strict=True)
    ]
    first = {row.input for row in next(iter(texts.values()))[: params.duel_inputs]}
    endpoint_pairs = [pair for pair in pairs if pair.input in first]
    rows, spent = JudgeAnswers([], {})
    with record_calls(args.calls):
        if pairs:
            rows, spent = ask_judges(params, args.reward, pairs, "duel", endpoint_pairs)
    write_rows(args.out, rows)
    identical = sum(row.a == row.b for row in rows)
    counts = {"verdicts": len(rows), "identical": identical}
    stage.print_counts("duel", counts)
    write_json(args.metrics, {**counts, "judges": spent})


if __name__ == "__main__":
    stage.run(main)
