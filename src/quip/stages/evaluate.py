"""Count the verdicts: win-tie rates and scores with intervals, controls, duels, text measures.

Reads the verdicts of every arm, the control and duel verdicts, the responses, the teacher's
references and the meaning scores; writes data/metrics/wtr.json, data/plots/wtr.csv and, with the
paper's own rates, data/metrics/paper.md.

    python -m quip.stages.evaluate --verdicts DIR --responses DIR --references FILE \
        --meaning FILE --out FILE --plots FILE --paper FILE
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple, get_args

from pydantic import Field

from quip import measures, paper, params, preference, stage, wtr
from quip.agreement import between
from quip.errors import DataError, ParamsError
from quip.params import Section
from quip.preference import Debias
from quip.records import (
    Critique,
    Meaning,
    Outcome,
    Reference,
    Response,
    Split,
    atomic,
    read_rows,
    write_json,
)

SPLITS = get_args(Split)
OUTCOMES = get_args(Outcome)
Cells = dict[str, dict[str, dict[str, Any]]]


class Params(Section):
    tie_margin: float = Field(ge=0, lt=0.5)
    resamples: int = Field(ge=100)
    seed: int = Field(ge=0)


class Text(NamedTuple):
    """One text to measure: who wrote it, for which input."""

    name: str
    split: str
    input: str
    text: str
    literal: str


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(
        __doc__, argv, "verdicts", "responses", "references", "meaning", "out", "plots", "paper"
    )
    arms = read_arms()
    settings = params.load("evaluate", Params)
    debias = params.load("debias", Debias)
    verdicts = Path(args.verdicts)
    judged = {arm: read_verdicts(verdicts / f"{arm}.jsonl", arm) for arm in arms}
    control = read_rows(verdicts / "control.jsonl", Critique)
    duels = read_rows(verdicts / "duel.jsonl", Critique) if len(arms) > 1 else []
    written = collect(judged, Path(args.responses), read_rows(args.references, Reference), control)
    result = {
        "arms": {arm: summaries(rows, settings, debias, arm) for arm, rows in judged.items()},
        "controls": by_name(control, settings, debias, lambda row: row.name_a),
        "judges": between_judges([*chain(*judged.values()), *duels], settings, debias),
        "duels": by_name(duels, settings, debias, lambda row: f"{row.name_a}_vs_{row.name_b}"),
        "texts": measure(written, read_rows(args.meaning, Meaning)),
        "settings": {**settings.model_dump(), "debias": debias.model_dump()},
    }
    write_json(args.out, result)
    write_plot(args.plots, result["arms"])
    with atomic(args.paper) as handle:
        handle.write(paper.beside(result["arms"]))
    print(table(result))


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


def by_name(
    rows: Iterable[Critique], settings: Params, debias: Debias, name: Any
) -> dict[str, Cells]:
    """Summaries of the rows that share a name, names in the order they come."""
    groups: dict[str, list[Critique]] = defaultdict(list)
    for row in rows:
        groups[name(row)].append(row)
    return {key: summaries(group, settings, debias, key) for key, group in groups.items()}


def summaries(rows: Iterable[Critique], settings: Params, debias: Debias, name: str) -> Cells:
    """{split: {judge: summary}} of one arm, control or duel."""
    cells: dict[str, dict[str, list[wtr.Comparison]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        cells[row.split][row.judge].append(compare(row, debias))
    return {
        split: {
            judge: summarise(cells[split][judge], settings, f"{name}, {split}, judge '{judge}'")
            for judge in sorted(cells[split])
        }
        for split in SPLITS
        if split in cells
    }


def between_judges(
    rows: Iterable[Critique], settings: Params, debias: Debias
) -> dict[str, dict[str, Any]]:
    """{"one and other": Cohen's kappa} of every two judges on what both could read."""
    said: dict[str, dict[tuple[str, str, str], str]] = defaultdict(dict)
    for row in rows:
        found = preference.of(row, debias)
        if found is not None:
            key = (row.name_a, row.name_b, row.input)
            said[row.judge][key] = preference.outcome(found, settings.tie_margin)
    tables = {}
    for one, other in combinations(sorted(said), 2):
        if both := [key for key in said[one] if key in said[other]]:
            first, second = ([said[judge][key] for key in both] for judge in (one, other))
            agreed = between(first, second, settings.resamples, settings.seed)
            tables[f"{one} and {other}"] = agreed
    return tables


def compare(row: Critique, debias: Debias) -> wtr.Comparison:
    return wtr.Comparison(
        input=row.input,
        preference=preference.of(row, debias),
        flipped=preference.flipped(row.forward, row.backward),
        length_ratio=measures.length_ratio(row.a, row.b),
    )


def summarise(rows: Sequence[wtr.Comparison], settings: Params, where: str) -> dict[str, Any]:
    """`wtr.summarise`, its errors saying which cell of the table they are about."""
    try:
        return wtr.summarise(rows, settings.tie_margin, settings.resamples, settings.seed)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def collect(
    judged: Mapping[str, Iterable[Critique]],
    responses: Path,
    references: Iterable[Reference],
    control: Iterable[Critique],
) -> list[Text]:
    """Every text to measure, on the splits that were judged: the arms' responses, the teacher's
    first paraphrases and the texts of the controls other than the teacher, each input once."""
    splits = {row.split for rows in judged.values() for row in rows}
    found = [
        Text(arm, row.split, row.input, row.text, row.literal)
        for arm in judged
        for row in read_rows(responses / f"{arm}.jsonl", Response)
    ]
    found += [
        Text("teacher", row.split, row.input, row.paraphrases[0], row.literal) for row in references
    ]
    return [text for text in found if text.split in splits] + list(control_texts(control))


def control_texts(control: Iterable[Critique]) -> Iterator[Text]:
    seen = set()
    for row in control:
        key = (row.name_a, row.split, row.input)
        if row.name_a != "teacher" and key not in seen:
            seen.add(key)
            yield Text(row.name_a, row.split, row.input, row.a, row.literal)


def measure(written: Iterable[Text], meaning: Iterable[Meaning]) -> Cells:
    """{name: {split: measures}}: those of `measures`, and `meaning`, the mean cosine."""
    cells: dict[tuple[str, str], list[Text]] = defaultdict(list)
    for text in written:
        cells[text.name, text.split].append(text)
    cosines: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in meaning:
        cosines[row.name, row.split].append(row.cosine)
    found: Cells = {}
    for (name, split), group in sorted(cells.items(), key=lambda item: SPLITS.index(item[0][1])):
        cell = measures.describe([(text.text, text.literal) for text in group])
        cell["meaning"] = mean_cosine(cosines[name, split], name, split)
        found.setdefault(name, {})[split] = cell
    return found


def mean_cosine(cosines: Sequence[float], name: str, split: str) -> float:
    if not cosines:
        raise DataError(
            f"no meaning score for the {split} texts of '{name}'. Run `dvc repro meaning` again."
        )
    return wtr.mean(cosines)


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
    lines += [f"judges {pair}: {kappa(found)}" for pair, found in result.get("judges", {}).items()]
    return "\n".join(lines)


def kappa(found: Mapping[str, Any]) -> str:
    return f"Cohen's kappa {bracket(found['kappa'], found['ci95'])} on {found['n']} comparisons"


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
