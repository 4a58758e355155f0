"""critique: asks the critic to compare the student's candidates for each training input.

Of an input's k samples the most diverse pair is compared (the paper's section on candidates). With
candidates.compare above 2, every two of that many most diverse samples are compared. The critic
answers in both orders, and its raw answers are kept; stage `preferences` decides.

A critic that the audit does not show to be better than chance is refused, unless
critique.unproven names it.

    python -m quip.stages.critique --candidates data/candidates.jsonl --reward models/reward \
        --audit data/metrics/critic.json --out data/critique.jsonl \
        --calls data/calls/critique.jsonl --metrics data/metrics/critique.json
"""

from __future__ import annotations

from collections.abc import Sequence

from quip.core.jsonl import read_json, read_rows, write_json, write_rows
from quip.core.params import load
from quip.core.records import Candidate
from quip.critics.critic_kinds import ask
from quip.critics.critic_settings import CriticParams, critic_name
from quip.critics.pair_selection import CandidateCounts, CritiqueParams, choose_comparisons
from quip.critics.unproven_gate import refuse_unproven
from quip.llm.call_outputs import record_calls
from quip.runtime import stage
from quip.runtime.errors import DataError, ParamsError

Params = CritiqueParams


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(
        __doc__, argv, "candidates", "reward", "audit", "out", "calls", "metrics"
    )
    params, critic = load("critique", Params), load("critic", CriticParams)
    drawn = load("candidates", CandidateCounts)
    refuse_unproven(read_json(args.audit), critic_name(critic), params.unproven)
    if drawn.compare > drawn.k:
        raise ParamsError(
            f"params.yaml: key 'candidates.compare' is {drawn.compare}, more than the "
            f"{drawn.k} samples of an input. Lower it, or raise candidates.k."
        )
    pairs, dropped = choose_comparisons(
        read_rows(args.candidates, Candidate), params, drawn.compare
    )
    if not pairs:
        raise DataError(
            f"critique: no pair of candidates is left ({dict(dropped)}). Raise candidates.k or "
            "candidates.temperature, or widen critique.length_ratio."
        )
    with record_calls(args.calls):
        rows, spent = ask(critic, args.reward, pairs, "critique")
    write_rows(args.out, rows)
    stage.print_counts("critique", {"pairs": len(rows), **dropped})
    write_json(args.metrics, {"pairs": len(rows), "dropped": dict(dropped), **spent})


if __name__ == "__main__":
    stage.run(main)
