"""register: registers every student as a version of one MLflow model, the best as challenger.

The best arm has the highest score on test by the judge that agrees best with the gold pairs (ties
go to the earlier arm of `arms`). `quip promote` moves the champion, when the challenger is shown to
be better; this stage does not. Only a registry without a champion gets one here: the best arm
becomes champion and the second best challenger, so that `models:/NAME@champion` answers after the
first run.

The stage works from files alone. Students whose stages DVC skipped, restored or pulled are
registered like those trained here, and a run that the tracking store lacks is rebuilt. A second
run with the same weights changes nothing.

    python -m quip.stages.register --models DIR --metrics DIR --runs DIR --curves DIR \\
        --responses DIR --references FILE --report FILE --out FILE
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from quip.core.jsonl import read_json, read_rows, write_json
from quip.core.params import Section, load, read_params
from quip.core.records import Reference, Response
from quip.critics.unproven_gate import most_trusted_judge
from quip.reporting import mlflow_pages, model_card
from quip.reporting.call_costs import cost_rows
from quip.runtime import paths, stage, stage_times
from quip.runtime.errors import DataError, ParamsError
from quip.tracking import backfill, mlflow_store, provenance, registry, runs
from quip.tracking.lineage import model_digest
from quip.tracking.registry import TrainedStudent, Version, serving_options

SPLIT = "test"
FIRST = "the first: best against the teacher on test"


class Params(Section):
    name: str


def main(argv: Sequence[str] | None = None) -> None:
    names = ("models", "metrics", "runs", "curves", "responses", "references", "report", "out")
    args = stage.arguments(__doc__, argv, *names)
    params, sections = load("register", Params), read_params()
    arms = read_arms(sections)
    wtr = read_json(Path(args.metrics, "wtr.json"))
    critic = read_json(Path(args.metrics, "critic.json"))
    ranking = rank_arms(arms, wtr, critic)
    ledger = cost_rows(
        {file.stem: read_json(file) for file in sorted(Path(args.metrics).glob("*.json"))}
    )
    digests = {arm: checked_digest(args, arm) for arm in arms}
    references = read_rows(args.references, Reference)
    took = stage_times.mlflow_metrics(paths.state("times.jsonl"), "register")
    # Two experiments that end at once would otherwise both find no version and make one each.
    with FileLock(paths.state("register.lock")), runs.require_store() as store:
        versions = {}
        for arm in arms:
            student = TrainedStudent(
                arm, Path(args.models, arm), complete_run(args, arm), digests[arm]
            )
            version = registry.register(store, params.name, student, serving_options(sections))
            provenance.record_version(store, params.name, version, arm)
            registry.set_tags(store, params.name, version, version_tags(arm, wtr, critic))
            facts = model_card.gather_facts(
                params.name,
                arm,
                digests[arm],
                student.folder,
                Path(args.metrics),
                Path(args.runs, f"{arm}.json"),
                sections.get("respond"),
            )
            mlflow_pages.describe_version(store, params.name, version, facts)
            mlflow_pages.log_training_data(store, version, facts.run["stage"], facts.made)
            figures = {**result_metrics(arm, wtr, critic), **call_totals(ledger), **took}
            mlflow_pages.log_results(store, version, figures, Path(args.references), references)
            answers = read_rows(Path(args.responses, f"{arm}.jsonl"), Response)
            mlflow_pages.log_samples(store, version, references, answers)
            store.client.log_artifact(version.run_id, args.report)
            store.client.log_dict(version.run_id, {"stages": ledger}, "calls.json")
            versions[arm] = version
        provenance.record_runs(store)
        mlflow_pages.describe_project(store, params.name)
        set_challenger(store, params.name, [versions[arm] for arm in ranking])
        aliases = registry.aliases(store, params.name)
        provenance.link(store, params.name)
    entries = {arm: registry_entry(versions[arm], digests[arm], aliases) for arm in arms}
    write_json(args.out, entries)
    print(f"register: {params.name} {'; '.join(summary_line(arm, entries[arm]) for arm in arms)}")


def summary_line(arm: str, entry: Mapping[str, Any]) -> str:
    return " ".join([f"version {entry['version']} is {arm}", *entry["aliases"]])


def read_arms(sections: Mapping[str, Any]) -> list[str]:
    arms = sections.get("arms")
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, str) for arm in arms):
        raise ParamsError(f"params.yaml: key 'arms' is {arms!r}: expected a list of arm names.")
    return arms


def judge_figures(
    arm: str, wtr: Mapping[str, Any], critic: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    """The most trusted judge's name and its figures of one arm on the test split."""
    try:
        cells = wtr["arms"][arm][SPLIT]
        judge = most_trusted_judge(critic, list(cells))
        return judge, cells[judge]
    except (KeyError, ValueError):
        raise DataError(
            f"wtr.json: no {SPLIT} verdicts on arm '{arm}'. Run `dvc repro evaluate`."
        ) from None


def rank_arms(arms: Sequence[str], wtr: Mapping[str, Any], critic: Mapping[str, Any]) -> list[str]:
    """Arms by test score under the most trusted judge, best first; ties in the order of `arms`."""
    return sorted(arms, key=lambda arm: -judge_figures(arm, wtr, critic)[1]["score"])


def checked_digest(args: Namespace, arm: str) -> str:
    """The digest of models/<arm>. Raises DataError when its training run made other weights."""
    digest = model_digest(Path(args.models, arm))
    pointer = Path(args.runs, f"{arm}.json")
    if backfill.read_pointer(pointer)["model_sha256"] != digest:
        raise DataError(
            f"{Path(args.models, arm)}: not the weights that {pointer} names. Run `dvc repro` (or "
            "`dvc checkout`) so that both come from one training."
        )
    return digest


def complete_run(args: Namespace, arm: str) -> str:
    """The id of the arm's training run; the run is completed, or created, from the files."""
    file = Path(args.runs, f"{arm}.json")
    pointer = backfill.read_pointer(file)
    curve = Path(args.curves, f"{arm}.csv")
    return backfill.backfill(pointer["stage"], curve, pointer["params"], file)


def version_tags(arm: str, wtr: Mapping[str, Any], critic: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a version: its arm, scores, judge, critic agreement and alarms."""
    judge, figures = judge_figures(arm, wtr, critic)
    low, high = figures["score_ci95"]
    return {
        "arm": arm,
        "wtr": f"{figures['wtr']:.3f}",
        "score": f"{figures['score']:.3f}",
        "score_ci95": f"{low:.3f} to {high:.3f}",
        "judge": judge,
        "n": str(figures["n"]),
        "critic.agreement": f"{critic['agreement']:.3f}",
        "alarms": ", ".join(wtr.get("alarms", {}).get(arm, {})) or "none",
    }


def result_metrics(arm: str, wtr: Mapping[str, Any], critic: Mapping[str, Any]) -> dict[str, float]:
    """The figures with a column in MLflow: `test/score.embedded`, `critic/agreement`, ...
    MLflow makes a section of its charts of the part before the slash."""
    values = {
        f"{split}/{key}.{judge}": figures[key]
        for split, judges in wtr["arms"][arm].items()
        for judge, figures in judges.items()
        for key in ("wtr", "score")
    }
    values["alarms"] = len(wtr.get("alarms", {}).get(arm, {}))
    values |= {
        f"{split}/difference.{judge}": figures["difference"]
        for split, judges in wtr.get("differences", {}).get(arm, {}).items()
        for judge, figures in judges.items()
    }
    trust = {f"critic/{key}": critic.get(key) for key in ("agreement", "position_bias")}
    found = {**values, **trust}
    return {key: float(value) for key, value in found.items() if value is not None}


def call_totals(ledger: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Totals over all stages: calls, calls answered from the store, their money, money paid."""
    keys = ("calls", "stored", "money", "paid")
    return {f"total/{key}": float(sum(row[key] for row in ledger)) for key in keys}


def set_challenger(store: mlflow_store.Store, name: str, ranking: Sequence[Version]) -> None:
    """Make the best version that is not champion the challenger; the champion stays.

    Without a champion (or when its files are gone) the best version becomes champion first.
    """
    champion = registry.champion_number(store, name)
    if champion is None:
        champion = ranking[0].number
        registry.promote(store, name, champion, None, FIRST)
    others = [version for version in ranking if version.number != champion]
    registry.set_aliases(store, name, {"challenger": others[0] if others else None})


def registry_entry(version: Version, digest: str, aliases: Mapping[str, str]) -> dict[str, Any]:
    return {
        "version": int(version.number),
        "run_id": version.run_id,
        "model_sha256": digest,
        "aliases": [alias for alias, holder in aliases.items() if holder == version.number],
    }


if __name__ == "__main__":
    stage.run(main)
