"""`quip human`: a blind study with people, its page and its results (docs/evaluation.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict

from quip.runtime.errors import ParamsError

FOLDER = Path("data/human")

app = typer.Typer(no_args_is_help=True, help="Ask people, blind, on a page of its own.")


class IntervalParams(BaseModel):
    """The keys of section `evaluate` that `read` uses."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    tie_margin: float
    resamples: int
    seed: int


@app.command()
def make(
    arms: Annotated[
        str | None, typer.Option(help="Their names, with commas; those of params.yaml if left out.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Inputs of each comparison.")] = 15,
    split: Annotated[str, typer.Option(help="val, test or ood.")] = "test",
    duels: Annotated[
        bool, typer.Option(help="Also every two arms, beside each against the teacher.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Another seed, other inputs in another order.")] = 1,
    out: Annotated[Path, typer.Option(help="The page; its key is written beside it.")] = FOLDER
    / "page.html",
    responses: Annotated[Path, typer.Option(help="Answers of the arms.")] = Path("data/responses"),
    references: Annotated[Path, typer.Option(help="Answers of the teacher.")] = Path(
        "data/imitation/references.jsonl"
    ),
) -> None:
    """Write one HTML page of blind pairs to send out, and the key to keep."""
    from quip.evaluation import blind_study

    names = selected_arms(arms)
    literals, texts = blind_study.read_texts(names, check_split(split), responses, references)
    key = blind_study.draw_pairs(
        literals, texts, blind_study.arm_pairs(names, duels), check_split(split), n, seed
    )
    blind_study.write_study(key, out)
    shortage = f" (only {len(literals)} inputs)" if len(literals) < n else ""
    typer.echo(
        f"{out}: {len(key.pairs)} pairs{shortage}; {len(key.same)} pairs of equal texts are ties. "
        f"Send it out.\n{blind_study.key_path(out)}: who wrote what. Keep it to yourself.\n"
        f"Next: quip human read FILES... --key {blind_study.key_path(out)}"
    )


@app.command()
def read(
    files: Annotated[list[Path], typer.Argument(help="The files that people sent back.")],
    key: Annotated[Path, typer.Option(help="The key of their page.")] = FOLDER / "page.key.json",
    verdicts: Annotated[Path, typer.Option(help="Verdicts of the judges to compare with.")] = Path(
        "data/verdicts"
    ),
    out: Annotated[Path, typer.Option(help="Folder for results and votes.")] = FOLDER,
    partial: Annotated[bool, typer.Option(help="Count files that are not complete, too.")] = False,
) -> None:
    """Check the FILES, count them, and keep the votes as gold pairs."""
    from quip.core.jsonl import write_json, write_rows
    from quip.core.params import load
    from quip.critics.debiasing import Debias
    from quip.evaluation import blind_study, blind_study_results

    study_key = blind_study.read_key(key)
    raters = blind_study_results.read_answer_files(files, study_key, partial)
    counting = load("evaluate", IntervalParams)
    found = blind_study_results.summarise(
        study_key,
        raters,
        blind_study_results.read_verdicts(verdicts),
        load("debias", Debias),
        **counting.model_dump(),
    )
    write_json(out / "people.json", found)
    typer.echo(blind_study_results.summary_text(found))
    for question in blind_study_results.QUESTIONS:
        pairs = blind_study_results.gold_pairs(study_key, question, raters)
        write_rows(out / f"votes_{question}.jsonl", pairs)
        typer.echo(f"{out / f'votes_{question}.jsonl'}: {len(pairs)} gold pairs")


def selected_arms(arms: str | None) -> list[str]:
    """The arms of a list with commas; the arms of params.yaml without one. Raises ParamsError when
    there is none."""
    from quip.core.params import read_params

    names = arms.split(",") if arms else read_params().get("arms") or []
    found = [name.strip() for name in names if name.strip()]
    if not found:
        raise ParamsError("no arm is named: give --arms, or list arms in params.yaml.")
    return list(dict.fromkeys(found))


def check_split(name: str) -> Any:
    if name not in ("train", "val", "test", "ood"):
        raise ParamsError(f"there is no split '{name}'. Choose val, test or ood.")
    return name
