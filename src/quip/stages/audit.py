"""audit: agreement of the critic and of every judge with people's gold pairs, with intervals.

All critics and judges of the run answer gold pairs of the held-out half, which was used neither to
choose a prompt nor to train a critic. The metrics hold the critic's figures at the top, those of
judging endpoints under `judges`, and those of further critics (audit.kinds) under `kinds`. The
length correction of `debias` is fitted to the critic of params.yaml only, so further critics are
debiased for position and not for length. Agreement with the graded files of `audit.extra` stands
under `extra`, by file and critic. The cost of the calls goes to a file of its own (`--ledger`): it
differs from run to run, and `critique` depends on the metrics.

    python -m quip.stages.audit --gold data/raw/gold.jsonl --extra data/pairs/extra.json \
        --reward models/reward --out data/audit/critiques.jsonl --calls data/calls/audit.jsonl \
        --metrics data/metrics/critic.json --ledger data/metrics/audit.json
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import Section, load
from quip.core.records import Critique, GoldPair
from quip.critics.comparison import gold_comparisons
from quip.critics.critic_kinds import ask
from quip.critics.critic_settings import (
    ENDPOINT_KINDS,
    LEARNED,
    CriticParams,
    critic_name,
    parse,
    prompt_name,
    short_form,
)
from quip.critics.debiasing import Debias
from quip.critics.judges import JudgeParams
from quip.critics.multiple_choice import measure_content_free
from quip.evaluation import human_agreement
from quip.evaluation.critic_audit import audit_summary
from quip.llm.call_outputs import record_calls
from quip.runtime import stage
from quip.runtime.errors import DataError


class Params(Section):
    per_kind: int | None
    """Gold pairs of each kind for critics that cost calls; null: all. A learned critic gets all."""
    extra: list[str]
    """Names of params `graded` to measure on as well (read by the stage `pairs`)."""
    extra_pairs: Annotated[int, Field(ge=1)] | None
    """Pairs of each extra file for critics that cost calls; null: all."""
    kinds: list[str] = Field(default=[])
    """Further critics to audit, in the short form of `quip.critics.critic_settings.parse`."""
    resamples: int
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    names = ("gold", "extra", "reward", "out", "calls", "metrics", "ledger")
    args = stage.arguments(__doc__, argv, *names)
    with record_calls(args.calls):
        audit(args)


def audit(args: Namespace) -> None:
    """Let all critics and judges compare gold pairs and extra files; write the results."""
    params, debias = load("audit", Params), load("debias", Debias)
    critic, *judges = critics_to_audit(load("critic", CriticParams), load("judge", JudgeParams))
    further = [
        kind
        for spec in params.kinds
        if call_signature(kind := parse(spec, critic)) != call_signature(critic)
    ]
    gold = read_rows(args.gold, GoldPair)

    def audit_critic(judge: CriticParams, name: str, correction: Debias) -> AuditResult:
        pairs = held_out_pairs(gold, None if judge.kind == LEARNED else params.per_kind)
        rows, spent = ask(judge, args.reward, gold_comparisons(pairs), f"audit ({name})")
        found = audit_summary(pairs, rows, correction, params.resamples, params.seed)
        print(summary_line(name, found))
        named_rows = [row.model_copy(update={"judge": name}) for row in rows]
        return AuditResult(named_rows, {**found, "critic": judge.model_dump()}, spent)

    by_judge = {critic_name(judge): (judge, debias) for judge in judges}
    by_kind = {label(kind): (kind, without_length(kind, debias)) for kind in further}
    first = audit_critic(critic, critic_name(critic), debias)
    others = {name: audit_critic(judge, name, used) for name, (judge, used) in by_judge.items()}
    more = {name: audit_critic(kind, name, used) for name, (kind, used) in by_kind.items()}
    every = [first, *others.values(), *more.values()]
    write_rows(args.out, [row for one in every for row in one.rows])
    parts = {
        part: {name: one.found for name, one in group.items()}
        for part, group in (("judges", others), ("kinds", more))
    }
    extra, extra_spent = human_agreement.measure_agreement(
        args.extra,
        {
            label(critic) if critic_name(critic) in by_judge else critic_name(critic): (
                critic,
                debias,
            )
        }
        | by_judge
        | by_kind,
        lambda asked, pairs, what: ask(asked, args.reward, pairs, what),
        params.extra_pairs,
        params.resamples,
        params.seed,
    )
    further_figures = {"debias": debias.model_dump(), **parts, "extra": extra}
    write_json(args.metrics, {**first.found, **further_figures})
    spent = {
        name: one.spent
        for name, one in zip([critic_name(critic), *others, *more], every, strict=True)
    }
    write_json(args.ledger, {"gold": spent, "extra": extra_spent})


def label(critic: CriticParams) -> str:
    """The short form of a critic with its endpoint, which differs from the name of any judge."""
    return (
        f"{short_form(critic)}@{critic.endpoint}" if critic.kind in ENDPOINT_KINDS else critic.kind
    )


class AuditResult(NamedTuple):
    """The critiques of one critic, its figures, and what its calls cost."""

    rows: list[Critique]
    found: dict[str, Any]
    spent: dict[str, float | str]


def without_length(critic: CriticParams, debias: Debias) -> Debias:
    """`debias` without its length correction; for method content_free with the critic's own
    measured position bias."""
    lean = measure_content_free(critic) if debias.method == "content_free" else None
    return Debias(method=debias.method, scale=1.0, per_word=0.0, content_free=lean)


def critics_to_audit(critic: CriticParams, judge: JudgeParams) -> list[CriticParams]:
    """The critic, then every judge that is not the critic itself."""
    judges = [
        critic.model_copy(
            update={
                "kind": "mcp",
                "endpoint": name,
                "question": "overall",
                "prompt": judge.prompt,
                "samples": judge.samples,
            }
        )
        for name in judge.endpoints
    ]
    return [critic, *(other for other in judges if call_signature(other) != call_signature(critic))]


def call_signature(critic: CriticParams) -> tuple[str, str, str, int]:
    """What determines the calls of a critic at one endpoint: kind, endpoint, prompt, samples."""
    prompt = prompt_name(critic) if critic.kind in ENDPOINT_KINDS else ""
    return critic.kind, critic.endpoint, prompt, critic.samples


def summary_line(name: str, found: dict[str, Any]) -> str:
    low, high = found["ci95"]
    return (
        f"audit: {name}: agreement {found['agreement']:.3f} [{low:.3f}, {high:.3f}] on "
        f"{found['n']} gold pairs, position bias {found['position_bias']:.3f}, length bias "
        f"{found['length_bias']:.3f}, unparsed {found['unparsed_pairs']}"
    )


def held_out_pairs(pairs: Sequence[GoldPair], per_kind: int | None) -> list[GoldPair]:
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
