"""audit: may the critic and the judges be trusted? Agreement with gold pairs, with intervals.

Everyone who compares texts in this run answers gold pairs of the held-out half, which chose no
prompt and trained no critic. The critic's figures stand at the top of the metrics, those of the
endpoints that judge under `judges`. What people say of the files in `audit.extra` stands under
`extra`, by file and critic.

    python -m quip.stages.audit --gold data/raw/gold.jsonl --extra data/pairs/extra.json \
        --reward models/reward --out data/audit/critiques.jsonl --metrics data/metrics/critic.json
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from quip import people, stage
from quip.agreement import audit_summary
from quip.critic import LEARNED, Answers, CriticParams, ask, gold_comparisons, named
from quip.errors import DataError
from quip.judging import JudgeParams
from quip.params import Section, load
from quip.preference import Debias
from quip.records import GoldPair, read_rows, write_json, write_rows


class Params(Section):
    per_kind: int | None
    """Gold pairs of each kind put to critics that cost calls; null: all. A learned one gets all."""
    extra: list[str]
    """Names of params `graded` to measure on besides (read by the stage `pairs`)."""
    extra_pairs: Annotated[int, Field(ge=1)] | None
    """Pairs of each of them put to critics that cost calls; null: all."""
    resamples: int
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "gold", "extra", "reward", "out", "metrics")
    params, debias = load("audit", Params), load("debias", Debias)
    critic, *judges = who(load("critic", CriticParams), load("judge", JudgeParams))
    gold = read_rows(args.gold, GoldPair)

    def audited(asked: CriticParams) -> tuple[Answers, dict[str, Any]]:
        pairs = held_out(gold, None if asked.kind == LEARNED else params.per_kind)
        answers = ask(asked, args.reward, gold_comparisons(pairs), f"audit ({named(asked)})")
        found = audit_summary(pairs, answers.rows, debias, params.resamples, params.seed)
        print(line(named(asked), found))
        return answers, {**found, "critic": asked.model_dump(), **answers.spent}

    answers, summary = audited(critic)
    others = {named(judge): audited(judge) for judge in judges}
    write_rows(args.out, [*answers.rows, *(row for a, _ in others.values() for row in a.rows)])
    found = {judge: one for judge, (_, one) in others.items()}
    extra = people.agreements(
        args.extra,
        [critic, *judges],
        lambda asked, pairs, what: ask(asked, args.reward, pairs, what),
        debias,
        params.extra_pairs,
        params.resamples,
        params.seed,
    )
    told = {"debias": debias.model_dump(), "judges": found, "extra": extra}
    write_json(args.metrics, {**summary, **told})


def who(critic: CriticParams, judge: JudgeParams) -> list[CriticParams]:
    """The critic, then every judge that is not the critic itself."""
    judges = [
        CriticParams(kind="mcp", endpoint=name, prompt=judge.prompt, samples=judge.samples)
        for name in judge.endpoints
    ]
    return [critic, *(other for other in judges if other != critic)]


def line(name: str, found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return (
        f"audit: {name}: agreement {found['agreement']:.3f} [{low:.3f}, {high:.3f}] on "
        f"{found['n']} gold pairs, position bias {found['position_bias']:.3f}, length bias "
        f"{found['length_bias']:.3f}, unparsed {found['unparsed_pairs']}"
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
