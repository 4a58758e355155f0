"""audit: may the critic and the judges be trusted? Agreement with gold pairs, with intervals.

Everyone who compares texts in this run answers gold pairs of the held-out half, which chose no
prompt and trained no critic. The critic's figures stand at the top of the metrics, those of the
endpoints that judge under `judges`, those of further critics (audit.kinds) under `kinds`. These
answer as they are: the numbers of `debias` are fitted to the critic of params.yaml and would fit no
other, so position is debiased and length is not corrected. What people say of the files in
`audit.extra` stands under `extra`, by file and critic. What the calls cost stands in a file of its
own (`--ledger`): it differs from run to run, and `critique` depends on the figures.

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
from quip.critics.critic import ask
from quip.critics.critic_kinds import (
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
    """Gold pairs of each kind put to critics that cost calls; null: all. A learned one gets all."""
    extra: list[str]
    """Names of params `graded` to measure on besides (read by the stage `pairs`)."""
    extra_pairs: Annotated[int, Field(ge=1)] | None
    """Pairs of each of them put to critics that cost calls; null: all."""
    kinds: list[str] = Field(default=[])
    """Further critics to audit, in the short form of `quip.critics.critic_kinds.parse`."""
    resamples: int
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    names = ("gold", "extra", "reward", "out", "calls", "metrics", "ledger")
    args = stage.arguments(__doc__, argv, *names)
    with record_calls(args.calls):
        audit(args)


def audit(args: Namespace) -> None:
    """Put the gold pairs, then the further files, to everyone who compares texts in this run."""
    params, debias = load("audit", Params), load("debias", Debias)
    critic, *judges = critics_to_audit(load("critic", CriticParams), load("judge", JudgeParams))
    further = [
        kind
        for spec in params.kinds
        if call_signature(kind := parse(spec, critic)) != call_signature(critic)
    ]
    gold = read_rows(args.gold, GoldPair)

    def audited(asked: CriticParams, name: str, used: Debias) -> Audited:
        pairs = held_out(gold, None if asked.kind == LEARNED else params.per_kind)
        rows, spent = ask(asked, args.reward, gold_comparisons(pairs), f"audit ({name})")
        found = audit_summary(pairs, rows, used, params.resamples, params.seed)
        print(summary_line(name, found))
        named_rows = [row.model_copy(update={"judge": name}) for row in rows]
        return Audited(named_rows, {**found, "critic": asked.model_dump()}, spent)

    beside = {critic_name(judge): (judge, debias) for judge in judges}
    added = {label(kind): (kind, uncorrected(kind, debias)) for kind in further}
    first = audited(critic, critic_name(critic), debias)
    others = {name: audited(judge, name, used) for name, (judge, used) in beside.items()}
    more = {name: audited(kind, name, used) for name, (kind, used) in added.items()}
    every = [first, *others.values(), *more.values()]
    write_rows(args.out, [row for one in every for row in one.rows])
    parts = {
        part: {name: one.found for name, one in group.items()}
        for part, group in (("judges", others), ("kinds", more))
    }
    extra, extra_spent = human_agreement.measure_agreement(
        args.extra,
        {label(critic) if critic_name(critic) in beside else critic_name(critic): (critic, debias)}
        | beside
        | added,
        lambda asked, pairs, what: ask(asked, args.reward, pairs, what),
        params.extra_pairs,
        params.resamples,
        params.seed,
    )
    told = {"debias": debias.model_dump(), **parts, "extra": extra}
    write_json(args.metrics, {**first.found, **told})
    spent = {
        name: one.spent
        for name, one in zip([critic_name(critic), *others, *more], every, strict=True)
    }
    write_json(args.ledger, {"gold": spent, "extra": extra_spent})


def label(critic: CriticParams) -> str:
    """The short form with the endpoint: a further critic is never called as a judge is."""
    return (
        f"{short_form(critic)}@{critic.endpoint}" if critic.kind in ENDPOINT_KINDS else critic.kind
    )


class Audited(NamedTuple):
    """The critiques of one critic, its figures, and what its calls cost."""

    rows: list[Critique]
    found: dict[str, Any]
    spent: dict[str, float | str]


def uncorrected(critic: CriticParams, debias: Debias) -> Debias:
    """`debias` without its fitted length; of content_free, with the critic's own measured lean."""
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
    """What decides the calls of a critic that asks one endpoint."""
    prompt = prompt_name(critic) if critic.kind in ENDPOINT_KINDS else ""
    return critic.kind, critic.endpoint, prompt, critic.samples


def summary_line(name: str, found: dict[str, Any]) -> str:
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
