"""Count the verdicts: win-tie rates, scores, differences and ratings with intervals; measure texts.

Reads the verdicts of every arm, the control and duel verdicts, the responses, the teacher's
references, the candidates (for length by round), the meaning scores and who plays which role;
writes data/metrics/wtr.json, data/plots/wtr.csv and, with the paper's own rates,
data/metrics/paper.md. Every number is defined in docs/METRICS.md.

    python -m quip.stages.evaluate --verdicts DIR --responses DIR --references FILE \
        --candidates FILE --rounds DIR --meaning FILE --similarity FILE --roles DIR --out FILE \
        --plots FILE --paper FILE
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from quip import leakage, paper, params, stage, written
from quip.alarms import Limits
from quip.differences import base_of
from quip.documents import read_json
from quip.errors import DataError, ParamsError
from quip.preference import Debias
from quip.records import (
    Critique,
    Meaning,
    Outcome,
    Reference,
    Response,
    atomic,
    read_rows,
    write_json,
)
from quip.standings import Cells, Counting, Standings

OUTCOMES = get_args(Outcome)
Params = Counting


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(
        __doc__, argv,
        "verdicts", "responses", "references", "candidates", "rounds", "meaning", "similarity",
        "roles", "out", "plots", "paper",
    )  # fmt: skip
    arms = read_arms()
    settings = params.load("evaluate", Params)
    debias = params.load("debias", Debias)
    limits = params.load("alarms", Limits)
    verdicts = Path(args.verdicts)
    judged = {arm: read_verdicts(verdicts / f"{arm}.jsonl", arm) for arm in arms}
    control = read_rows(verdicts / "control.jsonl", Critique)
    duels = read_rows(verdicts / "duel.jsonl", Critique) if len(arms) > 1 else []
    responses = {arm: read_rows(Path(args.responses) / f"{arm}.jsonl", Response) for arm in arms}
    texts = written.measure(
        written.collect(judged, responses, read_rows(args.references, Reference), control),
        read_rows(args.meaning, Meaning),
        read_json(Path(args.similarity)),
    )
    base = base_of(arms)
    drifts = written.drifts(responses, base, Path(args.candidates), Path(args.rounds))
    result = {
        **counted(
            Standings(settings, debias), judged, control, duels, base, read_roles(args.roles)
        ),
        "texts": texts,
        "length_by_round": drifts,
        "alarms": written.marks(texts, drifts, limits, arms),
        "settings": {
            **settings.model_dump(),
            "base": base,
            "alarms": limits.model_dump(),
            "debias": debias.model_dump(),
        },
    }
    write_json(args.out, result)
    write_plot(args.plots, result["arms"])
    with atomic(args.paper) as handle:
        handle.write(paper.beside(result["arms"]))
    print(table(result))


def counted(
    found: Standings,
    judged: Mapping[str, Sequence[Critique]],
    control: Sequence[Critique],
    duels: Sequence[Critique],
    base: str,
    roles: Mapping[str, Any],
) -> dict[str, Any]:
    """The blocks of wtr.json that rest on verdicts."""
    arms = {arm: found.summaries(rows, arm) for arm, rows in judged.items()}
    duelled = found.by_name(duels, lambda row: f"{row.name_a}_vs_{row.name_b}")
    found.sign_tests(duelled, base)
    against = [*chain(*judged.values()), *duels]
    ratings = found.ratings([*against, *control])
    return {
        "arms": arms,
        "controls": found.by_name(control, lambda row: row.name_a),
        "duels": duelled,
        "differences": found.differences(judged, base),
        "ratings": ratings,
        "judges": found.judges(against, arms, ratings),
        "leakage": found.leakage(judged, roles, base),
    }


def read_roles(folder: str) -> dict[str, Any]:
    """Which model plays teacher, critic and judges, from data/roles."""
    names = ("teacher", "critic", "judges")
    return leakage.roles({name: read_json(Path(folder, f"{name}.json")) for name in names})


def read_arms(path: Path = params.PARAMS_FILE) -> list[str]:
    """The top-level list `arms` of params.yaml; ParamsError when it is no list of names."""
    arms = params.read_params(path).get("arms")
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, str) for arm in arms):
        raise ParamsError(f"{path}: key 'arms' is {arms!r}: want a list of names, as [sft, dpo].")
    return arms


def read_verdicts(path: Path, arm: str) -> list[Critique]:
    """The verdicts of one arm against the teacher; DataError when the rows are of another."""
    rows = read_rows(path, Critique)
    for row in rows:
        if (row.name_a, row.name_b) != (arm, "teacher"):
            raise DataError(
                f"{path}: input '{row.input}' compares '{row.name_a}' with '{row.name_b}', not "
                f"'{arm}' with 'teacher'. Run `dvc repro judge@{arm}` again."
            )
    return rows


def write_plot(path: str, arms: dict[str, Cells]) -> None:
    with atomic(path) as handle:
        rows = csv.writer(handle, lineterminator="\n")
        rows.writerow(["arm", "split", "judge", *OUTCOMES])
        for arm, split, judge, cell in flat(arms):
            rows.writerow([arm, split, judge, *(round(cell[key], 6) for key in OUTCOMES)])


def flat(block: dict[str, Cells]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name, splits in block.items():
        for split, judges in splits.items():
            for judge, cell in judges.items():
                yield name, split, judge, cell


def table(result: dict[str, Any]) -> str:
    """The summary a person reads in the terminal, one line a cell."""
    head = f"{'':<20}{'split':<6}{'judge':<14}{'WTR':<20}{'score':<20}{'W/T/L %':<12}{'n':>5}"
    lines = [head]
    for title, block in (
        ("against the teacher", "arms"),
        ("controls", "controls"),
        ("head to head", "duels"),
    ):
        if result[block]:
            lines += [f"{title}", *(line(*row) for row in flat(result[block]))]
    if result.get("differences"):
        lines.append(f"less {result['settings']['base']}, against the teacher, paired by input")
        lines += [difference(*row) for row in flat(result["differences"])]
    lines += [f"judges {pair}: {agreed(found)}" for pair, found in result.get("judges", {}).items()]
    lines += [
        f"rating by {judge}, teacher 0: "
        + ", ".join(f"{name} {row['rating']:+.0f}" for name, row in rows.items())
        for judge, rows in result.get("ratings", {}).items()
    ]
    lines += [
        f"alarm: {arm}, {name} {past['value']:.2f}, limit {past['limit']:.2f}"
        for arm, alarms in result.get("alarms", {}).items()
        for name, past in alarms.items()
    ]
    return "\n".join(lines)


def difference(name: str, split: str, judge: str, cell: Mapping[str, Any]) -> str:
    plain, at_length = (
        bracket(cell[key], cell[ends])
        for key, ends in (("difference", "ci95"), ("at_length", "at_length_ci95"))
    )
    return (
        f"  {name:<18}{split:<6}{judge:<14}{plain:<21}at equal length {at_length:<21}"
        f"Holm p {cell['p_holm']:.3f}"
    )


def agreed(found: Mapping[str, Any]) -> str:
    tau = found["order_of_all"]["tau"]
    order = (
        "" if tau is None else f"; Kendall's tau {tau:.2f} of {found['order_of_all']['n']} rated"
    )
    kappa = bracket(found["kappa"], found["ci95"])
    return f"Cohen's kappa {kappa} on {found['n']} comparisons{order}"


def line(name: str, split: str, judge: str, cell: dict[str, Any]) -> str:
    shares = "/".join(f"{100 * cell[key]:.0f}" for key in OUTCOMES)
    return (
        f"  {name:<18}{split:<6}{judge:<14}{bracket(cell['wtr'], cell['ci95']):<20}"
        f"{bracket(cell['score'], cell['score_ci95']):<20}{shares:<12}{cell['n']:>5}"
    )


def bracket(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


if __name__ == "__main__":
    stage.run(main)
