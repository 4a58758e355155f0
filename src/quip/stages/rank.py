"""rank: the critic ranks the teacher's own paraphrases of each training input (for `brio_dpo`).

Every two paraphrases of an input with similar lengths are compared in both orders. The stage makes
no call unless `arms` names brio_dpo. A critic that the audit does not show to be better than chance
is refused, as by `critique`. Inputs with one paraphrase are dropped and counted.

    python -m quip.stages.rank --wanted data/roles/arms/brio_dpo.json \
        --pairs data/imitation/pairs.jsonl --reward models/reward \
        --audit data/metrics/critic.json --out data/rank/rankings.jsonl \
        --calls data/calls/rank.jsonl --metrics data/metrics/rank.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from quip.core.jsonl import read_json, read_rows, write_json, write_rows
from quip.core.params import load
from quip.core.records import Candidate, TrainingPair
from quip.critics.critic_kinds import ask
from quip.critics.critic_settings import CriticParams, critic_name
from quip.critics.debiasing import Debias
from quip.critics.pair_selection import CritiqueParams, choose_comparisons
from quip.critics.ranking import decide
from quip.critics.unproven_gate import refuse_unproven
from quip.llm.call_outputs import record_calls
from quip.runtime import stage
from quip.runtime.errors import DataError
from quip.training.skipped import is_skipped


def main(argv: Sequence[str] | None = None) -> None:
    names = ("wanted", "pairs", "reward", "audit", "out", "calls", "metrics")
    args = stage.arguments(__doc__, argv, *names)
    if is_skipped(args.wanted):
        print("rank: 'brio_dpo' is not in `arms` of params.yaml; no call is made.")
        write_rows(args.out, [])
        write_rows(args.calls, [])
        return write_json(args.metrics, {"rankings": 0})
    params, critic = load("critique", CritiqueParams), load("critic", CriticParams)
    debias = load("debias", Debias)
    refuse_unproven(read_json(args.audit), critic_name(critic), params.unproven)
    texts = as_candidates(read_rows(args.pairs, TrainingPair))
    most = max(Counter(row.input for row in texts).values())
    pairs, dropped = choose_comparisons(texts, params, most)
    with record_calls(args.calls):
        critiques, spent = ask(critic, args.reward, pairs, "rank")
    _, rankings, undecided = decide(critiques, debias, 0.5)
    if not rankings:
        raise DataError(
            f"rank: no ranking of the teacher's paraphrases is left ({dict(dropped + undecided)}). "
            "Raise teacher.n and imitation.per_input, or widen critique.length_ratio."
        )
    write_rows(args.out, rankings)
    counts = {"critiques": len(critiques), "rankings": len(rankings)}
    stage.print_counts("rank", {**counts, **dropped, **undecided})
    write_json(args.metrics, {**counts, "dropped": dict(dropped + undecided), **spent})


def as_candidates(pairs: Iterable[TrainingPair]) -> list[Candidate]:
    """The teacher's paraphrases, numbered within each input."""
    seen: Counter[str] = Counter()
    rows = []
    for pair in pairs:
        number, text = seen[pair.input], pair.paraphrase
        rows.append(
            Candidate(
                input=pair.input, split="train", literal=pair.literal, sample=number, text=text
            )
        )
        seen[pair.input] += 1
    return rows


if __name__ == "__main__":
    stage.run(main)
