"""The command `quip` and its verbs; those about registered versions stand in `model_verbs`.

Each verb imports its modules when it runs, so help is fast.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from quip.cli import calls, human
from quip.cli.model_verbs import VERBS
from quip.runtime.errors import DataError, QuipError

PARAMS = Path("params.yaml")
WTR = Path("data/metrics/wtr.json")
REPORT = Path("data/report/report.html")
TRY_NEXT = (
    'quip say "I missed my bus."                   paraphrases from the champion',
    "mlflow ui                                      curves, lineage and versions, in the browser",
    "dvc exp run -S dpo.beta=0.3                    another setting; `dvc exp show` compares",
)


class Verbs(TyperGroup):
    """Group of verbs that prints a QuipError as one line and ends with its exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except QuipError as error:
            typer.echo(f"quip: {error}", err=True)
            raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=Verbs,
    help="Teach a small language model to be funny with a large one as teacher and critic.\n\n"
    "First steps: `quip doctor`, then `quip try` (docs/tutorial.md). Run it in a project's root.",
    epilog="An arm is one way of training a student (sft, dpo, ...); each trained student is a "
    "version in MLflow's registry. The champion is the version in use, the challenger the newest "
    "rival.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(calls.app, name="calls")
app.add_typer(human.app, name="human")


for verb in VERBS:
    app.command()(verb)


@app.command()
def plan(
    params: Annotated[
        Path, typer.Option(help="Another params file, such as params.paper.yaml.")
    ] = PARAMS,
) -> None:
    """Calls, tokens, money and time of a run, before it starts."""
    from quip.cli import plan as planning
    from quip.cli import plan_data
    from quip.core.params import read_params

    sections = read_params(params)
    data = plan_data.measure_data(sections, prepared_here=params == PARAMS)
    works = planning.plan(sections, data)
    typer.echo(planning.table(works, (sections.get("budget") or {}).get("money")))


@app.command()
def doctor() -> None:
    """What is missing or wrong here, and how to mend it.

    Checks Python, packages, weights, params, keys, endpoints, disk, stores and locks, and changes
    nothing. Ends with 2 when something stops a run.
    """
    from quip.cli import doctor as check

    found = check.run_checks()
    for finding in found:
        typer.echo(finding.line())
    if any(finding.level == "mend" for finding in found):
        raise typer.Exit(2)


@app.command()
def times() -> None:
    """Seconds and share of each stage, from its last run here."""
    from quip.runtime import paths
    from quip.runtime import stage_times as clock

    typer.echo(clock.table(clock.read(paths.state("times.jsonl"))))


@app.command()
def critics(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="KIND[:QUESTION][:calibrated][/PROMPT][@ENDPOINT] each, or the name of a prompt; "
            "every kind and question when left out."
        ),
    ] = None,
    per_kind: Annotated[
        int | None, typer.Option(help="Gold pairs of each kind; all when left out.")
    ] = None,
    half: Annotated[
        Literal["tune", "held_out"],
        typer.Option(help="`tune` to choose a critic, `held_out` to report it."),
    ] = "tune",
    length: Annotated[
        bool,
        typer.Option("--length", help="Also correct length, as fitted on the tuning half."),
    ] = False,
) -> None:
    """Compare critics, prompts and debiasings on gold pairs.

    Each critic answers one half of the gold pairs, with every debiasing. On the tuning half
    `debias` is also fitted to each critic.
    """
    from quip.evaluation import critic_comparison

    rows, fits = critic_comparison.compare_critics(
        names or critic_comparison.DEFAULT_CRITICS, half, per_kind, length
    )
    typer.echo("\n".join(critic_comparison.comparison_table(rows)))
    for name, found in fits.items():
        typer.echo(f"{name}: debias: {found.model_dump(exclude_none=True)}")


@app.command()
def grow(
    files: Annotated[list[Path], typer.Argument(help="Graded pairs to learn from.")],
    measure: Annotated[
        Path | None, typer.Option(help="Graded pairs to measure on; else the held-out halves.")
    ] = None,
    sizes: Annotated[str | None, typer.Option(help="Votes, such as 50,200,1000,all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Critics of each size.")] = 3,
    params: Annotated[
        Path, typer.Option(help="Another recipe, laid over section `reward` of params.yaml.")
    ] = PARAMS,
    figure: Annotated[Path | None, typer.Option(help="Draw the curve into this SVG file.")] = None,
) -> None:
    """Learning curve of the learned critic over people's votes.

    Critics are trained on 50, 200, 1,000, ... votes and measured on pairs they never saw.
    """
    from quip.cli.skill_packs import merge_params
    from quip.core.jsonl import atomic
    from quip.core.params import read_params, validate
    from quip.evaluation import critic_learning_curve
    from quip.reporting import svg_plots
    from quip.training.reward import RewardParams

    recipe = merge_params(read_params(), read_params(params))["reward"]
    checked = validate(recipe, RewardParams, "reward", params)
    data = critic_learning_curve.read_pairs(files, measure)
    typer.echo(
        f"{critic_learning_curve.summary_line(data, checked)}\n\n{critic_learning_curve.HEADER}"
    )
    found = []
    for point in critic_learning_curve.learning_curve(
        data, critic_learning_curve.parse_sizes(sizes, len(data.learn)), seeds, checked
    ):
        typer.echo(critic_learning_curve.table_row(point))
        found.append((point.size, point.mean, point.low, point.high))
    if figure:
        with atomic(figure) as handle:
            handle.write(svg_plots.learning_curve(figure.stem, found, "agreement with people"))


@app.command(name="rounds")
def lay_out_rounds(
    count: Annotated[int, typer.Argument(min=1, help="How often feedback is collected.")],
) -> None:
    """Collect feedback COUNT times: writes rounds.yaml.

    The rounds share the epochs of training on feedback.
    """
    from quip.core.params import read_params
    from quip.training import rounds

    found = rounds.write(count, read_params().get("arms") or [])
    earlier = ", ".join(name for name in found["attempts"] if name != rounds.WARM_START) or "none"
    typer.echo(f"{rounds.FILE}: rounds {count}; earlier rounds: {earlier}. Next: dvc repro")


@app.command(name="try")
def try_pipeline(
    pack: Annotated[
        str | None, typer.Option(help="Another skill: a folder under packs, or a path.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where; .quip/try (or .quip/try-PACK) when left out.")
    ] = None,
) -> None:
    """The whole pipeline on little data: a first look, in minutes.

    Runs in a project of its own with the values of params.try.yaml; nothing here changes. The data
    are too few for meaningful numbers.
    """
    from quip.cli import skill_packs, try_run

    found = skill_packs.find_pack(Path.cwd(), pack) if pack else None
    folder = folder or Path(".quip", f"try-{found.name}" if found else "try")
    try_run.lay_out(Path.cwd(), folder, found)
    code = try_run.repro(folder.resolve())
    if code:
        raise typer.Exit(code)
    os.chdir(folder)
    times()
    results()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    pack: Annotated[
        str | None,
        typer.Option(help="The skill to start from: a folder under packs, or a path."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(exists=True, help="Sentences of your own: .csv, .tsv, .json, .jsonl, .txt."),
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column of --data to read.")] = None,
) -> None:
    """Lay out this pipeline in FOLDER, for your data and task.

    FOLDER becomes a git repository with this project's code, and its prompts, texts and params or
    those of a pack, without results (docs/another_skill.md).
    """
    from quip.cli import new_project, skill_packs

    project = Path.cwd()
    found = skill_packs.find_pack(project, pack) if pack else None
    counts = new_project.create_project(project, folder, found, data, column)
    parts = ", ".join(f"{part} {counts[part]}" for part in ("train", "val", "test"))
    typer.echo(f"{folder}: sentences {parts}\nNext:")
    for line in (f"cd {folder}", 'git commit --message "A student of my own"', "make run"):
        typer.echo(f"  {line}")


@app.command()
def results() -> None:
    """The table of win-tie rates with intervals, and what to try next."""
    import json

    from quip.reporting import claims
    from quip.reporting.results_table import render_table

    if not WTR.is_file():
        raise DataError(f"{WTR}: no results yet. Run `make run` or `dvc repro`.")
    found = json.loads(WTR.read_text(encoding="utf-8"))
    typer.echo(f"{render_table(found)}\n\n{claims.claim(found)}\n")
    where = REPORT if REPORT.is_file() else "not there yet: `dvc repro report`"
    typer.echo(f"Report page: {where}\nNext, try:")
    for number, line in enumerate(TRY_NEXT, start=1):
        typer.echo(f"  {number}. {line}")


@app.command()
def examples(
    n: Annotated[int, typer.Option(min=1, help="How many test sentences.")] = 3,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The block of README.md, marks included.")
    ] = False,
) -> None:
    """Test sentences with the texts of teacher and students.

    Shows the first N by the sha256 of their ids, so that nobody chooses them.
    """
    from quip.cli import examples as showing

    found = showing.read_examples(n)
    typer.echo(showing.as_markdown(found) if markdown else showing.as_text(found), nl=not markdown)


if __name__ == "__main__":
    app()
