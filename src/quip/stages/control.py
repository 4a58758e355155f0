"""control: judge verdicts on texts of known quality, and the best-of-n baseline.

A/A       two paraphrases of the teacher against each other: should score one half
copy      the literal itself against the teacher: should lose by a judge of humor
best_of_n the critic's favourite of the warm start's n samples against the teacher

    python -m quip.stages.control --references data/imitation/references.jsonl \
        --candidates data/candidates.jsonl --reward models/reward \
        --out data/verdicts/control.jsonl --calls data/calls/control.jsonl \
        --metrics data/metrics/control.json
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import load
from quip.core.records import Candidate, Reference
from quip.critics.comparison import Comparison
from quip.critics.critic_kinds import ask
from quip.critics.critic_settings import CriticParams
from quip.critics.debiasing import Debias, calibrated_preference
from quip.critics.judges import JudgeParams, ask_judges
from quip.llm.call_outputs import record_calls
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    names = ("references", "candidates", "reward", "out", "calls", "metrics")
    args = stage.arguments(__doc__, argv, *names)
    params, critic = load("judge", JudgeParams), load("critic", CriticParams)
    debias = load("debias", Debias)
    references = [r for r in read_rows(args.references, Reference) if r.split == "test"]
    subsample = references[: params.control_inputs]
    several = [r for r in subsample if len(r.paraphrases) > 1]
    with record_calls(args.calls):
        best, ledger = best_of_n(read_rows(args.candidates, Candidate), critic, args.reward, debias)
        pairs = [
            *(against_teacher("teacher", r, r.paraphrases[1]) for r in several),
            *(against_teacher("copy", r, r.literal) for r in subsample),
            *(
                against_teacher("best_of_n", r, best[r.input])
                for r in references
                if r.input in best
            ),
        ]
        rows, spent = ask_judges(params, args.reward, pairs, "control")
    write_rows(args.out, rows)
    controls = ("teacher", "copy", "best_of_n")
    counts = {name: sum(row.name_a == name for row in rows) for name in controls}
    stage.print_counts("control", counts)
    write_json(args.metrics, {**counts, "critic": ledger, "judges": spent})


def against_teacher(name: str, row: Reference, text: str) -> Comparison:
    return Comparison(row.input, row.split, row.literal, name, "teacher", text, row.paraphrases[0])


def best_of_n(
    candidates: Iterable[Candidate], critic: CriticParams, reward: str, debias: Debias
) -> tuple[dict[str, str], dict[str, dict[str, float | str]]]:
    """The critic's favourite sample of each test input, by a knock-out of n - 1 comparisons, and
    the ledger of each round."""
    rivals: dict[str, list[Candidate]] = {}
    for row in candidates:
        if row.split == "test" and row.text:
            rivals.setdefault(row.input, []).append(row)
    ledger: dict[str, dict[str, float | str]] = {}
    while any(len(rows) > 1 for rows in rivals.values()):
        pairs = [pair for rows in rivals.values() for pair in pair_neighbours(rows)]
        rows, spent = ask(critic, reward, pairs, "best of n")
        if spent:
            ledger[f"round {len(ledger) + 1}"] = spent
        lost = {
            (c.input, loser(calibrated_preference(c, debias), c.name_a, c.name_b)) for c in rows
        }
        rivals = {
            key: [row for row in rows if (key, str(row.sample)) not in lost]
            for key, rows in rivals.items()
        }
    return {key: rows[0].text for key, rows in rivals.items()}, ledger


def pair_neighbours(rows: Sequence[Candidate]) -> list[Comparison]:
    """Comparisons of neighbouring candidates; an odd last one has no opponent."""
    return [
        Comparison(a.input, a.split, a.literal, str(a.sample), str(b.sample), a.text, b.text)
        for a, b in zip(rows[::2], rows[1::2], strict=False)
    ]


def loser(preference: float | None, a: str, b: str) -> str:
    """The name of the text that loses; the second when there is no readable preference."""
    return a if preference is not None and preference < 0.5 else b


if __name__ == "__main__":
    stage.run(main)
