"""audit: may the critic be trusted? Its choices on gold pairs whose better text is known.

Only the held-out half is used: the other half chose the prompt (`quip critics`). Agreement,
position bias and length bias, with intervals, overall and by kind of pair.

    python -m quip.stages.audit --gold data/raw/gold.jsonl --out data/audit/critiques.jsonl \
        --metrics data/metrics/critic.json
"""

from __future__ import annotations

from collections.abc import Sequence

from quip import oracle, stage
from quip.agreement import audit_summary
from quip.critic import CriticParams, compare, gold_comparisons
from quip.errors import DataError
from quip.params import Section, load
from quip.preference import Debias
from quip.records import GoldPair, read_rows, write_json, write_rows


class Params(Section):
    per_kind: int | None
    resamples: int
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "gold", "out", "metrics")
    params, critic = load("audit", Params), load("critic", CriticParams)
    debias = load("debias", Debias)
    pairs = held_out(read_rows(args.gold, GoldPair), params.per_kind)
    with oracle.connect(critic.endpoint) as model:
        critiques = compare(model, critic.prompt, critic.samples, gold_comparisons(pairs), "audit")
        spent = model.spent()
    write_rows(args.out, critiques)
    summary = audit_summary(pairs, critiques, debias, params.resamples, params.seed)
    write_json(
        args.metrics,
        {**summary, "critic": critic.model_dump(), "debias": debias.model_dump(), **spent},
    )
    low, high = summary["ci95"]
    stage.say("audit", {"pairs": len(pairs), "unparsed": summary["unparsed_pairs"]})
    print(
        f"  agreement {summary['agreement']:.3f} [{low:.3f}, {high:.3f}], position bias "
        f"{summary['position_bias']:.2f}, length bias {summary['length_bias']:.2f}"
    )


def held_out(pairs: Sequence[GoldPair], per_kind: int | None) -> list[GoldPair]:
    """The held-out pairs, at most `per_kind` of each kind (the first ones in the file)."""
    kept: dict[str, list[GoldPair]] = {}
    for pair in pairs:
        if pair.half == "held_out":
            kept.setdefault(pair.kind, []).append(pair)
    if not kept:
        raise DataError("audit: no gold pair is marked 'held_out'.")
    return [pair for group in kept.values() for pair in group[:per_kind]]


if __name__ == "__main__":
    stage.run(main)
