"""evaluate: win-tie rates, scores, differences and ratings with intervals, and text measures.

Reads the verdicts of every arm, the control and duel verdicts, the responses, the teacher's
references, the candidates (for length by round), the meaning scores and the roles' models; writes
data/metrics/wtr.json, data/plots/wtr.csv and, beside the paper's own rates, data/metrics/paper.md.
docs/evaluation.md defines every number.

    python -m quip.stages.evaluate --verdicts DIR --responses DIR --references FILE \
        --candidates FILE --rounds DIR --meaning FILE --similarity FILE --roles DIR --out FILE \
        --plots FILE --paper FILE
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from quip.core import params
from quip.core.jsonl import atomic, read_json, read_rows, write_json
from quip.core.records import Critique, Meaning, Reference, Response
from quip.critics.debiasing import Debias
from quip.evaluation import published_results, text_evaluation
from quip.evaluation.alarms import Limits
from quip.evaluation.leaderboard import Cells, Counting, Leaderboard
from quip.evaluation.metrics import preference_leakage
from quip.evaluation.metrics.paired_differences import base_arm
from quip.reporting.results_table import OUTCOMES, flat_cells, render_table
from quip.runtime import stage
from quip.runtime.errors import DataError, ParamsError

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
    texts = text_evaluation.measure_texts(
        text_evaluation.collect_texts(
            judged, responses, read_rows(args.references, Reference), control
        ),
        read_rows(args.meaning, Meaning),
        read_json(Path(args.similarity)),
    )
    base = base_arm(arms)
    drifts = text_evaluation.length_drifts(
        responses, base, Path(args.candidates), Path(args.rounds)
    )
    result = {
        **verdict_blocks(
            Leaderboard(settings, debias), judged, control, duels, base, read_roles(args.roles)
        ),
        "texts": texts,
        "length_by_round": drifts,
        "alarms": text_evaluation.alarms_by_arm(texts, drifts, limits, arms),
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
        handle.write(published_results.comparison_page(result["arms"]))
    print(render_table(result))


def verdict_blocks(
    leaderboard: Leaderboard,
    judged: Mapping[str, Sequence[Critique]],
    control: Sequence[Critique],
    duels: Sequence[Critique],
    base: str,
    roles: Mapping[str, Any],
) -> dict[str, Any]:
    """The blocks of wtr.json that are computed from verdicts."""
    arms = {arm: leaderboard.summaries(rows, arm) for arm, rows in judged.items()}
    duelled = leaderboard.summaries_by_name(duels, lambda row: f"{row.name_a}_vs_{row.name_b}")
    leaderboard.add_sign_tests(duelled, base)
    against = [*chain(*judged.values()), *duels]
    ratings = leaderboard.ratings([*against, *control])
    return {
        "arms": arms,
        "controls": leaderboard.summaries_by_name(control, lambda row: row.name_a),
        "duels": duelled,
        "differences": leaderboard.differences(judged, base),
        "ratings": ratings,
        "judges": leaderboard.judge_agreement(against, arms, ratings),
        "leakage": leaderboard.leakage(judged, roles, base),
    }


def read_roles(folder: str) -> dict[str, Any]:
    """The models of teacher, critic and judges, from data/roles."""
    names = ("teacher", "critic", "judges")
    return preference_leakage.model_roles(
        {name: read_json(Path(folder, f"{name}.json")) for name in names}
    )


def read_arms(path: Path = params.PARAMS_FILE) -> list[str]:
    """The top-level list `arms` of params.yaml. Raises ParamsError when it is no list of names."""
    arms = params.read_params(path).get("arms")
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, str) for arm in arms):
        raise ParamsError(f"{path}: key 'arms' is {arms!r}. Write a list of names, as [sft, dpo].")
    return arms


def read_verdicts(path: Path, arm: str) -> list[Critique]:
    """The verdicts of one arm against the teacher. Raises DataError for rows of another arm."""
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
        for arm, split, judge, cell in flat_cells(arms):
            rows.writerow([arm, split, judge, *(round(cell[key], 6) for key in OUTCOMES)])


if __name__ == "__main__":
    stage.run(main)
