"""Text evaluation: measures, length by round and alarms of the texts of arms, teacher and controls.

The texts are the arms' responses, the teacher's first paraphrases and the texts of the controls,
on the splits that were judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from quip.core.jsonl import read_rows
from quip.core.records import Candidate, Critique, Meaning, Reference, Response, Split
from quip.evaluation import alarms
from quip.evaluation.alarms import Limits
from quip.evaluation.metrics import bootstrap, text_metrics
from quip.runtime.errors import DataError
from quip.training import rounds

SPLITS = get_args(Split)
SPLIT = "test"
TextMeasures = dict[str, dict[str, dict[str, Any]]]
"""{name: {split: measures}}."""


class Text(NamedTuple):
    """One text to measure, with its writer (`name`) and its input."""

    name: str
    split: str
    input: str
    text: str
    literal: str


def collect_texts(
    judged: Mapping[str, Iterable[Critique]],
    responses: Mapping[str, Iterable[Response]],
    references: Iterable[Reference],
    control: Iterable[Critique],
) -> list[Text]:
    """Every text to measure, on the splits that were judged: the arms' responses, the teacher's
    first paraphrases and the texts of the controls other than the teacher, each input once."""
    splits = {row.split for rows in judged.values() for row in rows}
    found = [
        Text(arm, row.split, row.input, row.text, row.literal)
        for arm, rows in responses.items()
        for row in rows
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


def measure_texts(
    texts: Iterable[Text], meaning: Iterable[Meaning], similarity: Mapping[str, Any]
) -> TextMeasures:
    """The measures of `text_metrics.text_measures` by name and split, with two more: `meaning`, the
    mean cosine of text and literal, and `self_similarity`, {name: {split: value}} from the stage
    `meaning`. Raises DataError when either is missing for a text."""
    cells: dict[tuple[str, str], list[Text]] = defaultdict(list)
    for text in texts:
        cells[text.name, text.split].append(text)
    cosines: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in meaning:
        cosines[row.name, row.split].append(row.cosine)
    found: TextMeasures = {}
    for (name, split), group in sorted(cells.items(), key=lambda item: SPLITS.index(item[0][1])):
        cell = text_metrics.text_measures([(text.text, text.literal) for text in group])
        if (name, split) not in cosines or split not in similarity.get(name, {}):
            raise DataError(
                f"no meaning score for the {split} texts of '{name}'. Run `dvc repro meaning` "
                "again."
            )
        cell["meaning"] = bootstrap.mean(cosines[name, split])
        cell["self_similarity"] = similarity[name][split]
        found.setdefault(name, {})[split] = cell
    return found


def length_drifts(
    responses: Mapping[str, Sequence[Response]], base: str, candidates: Path, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """{arm: `alarms.length_drift`} for every arm but the base.

    `candidates` are the warm start's samples; those of the student after round r are in
    folder/ARM-r, for the rounds of rounds.yaml. `folder` needs no entry in dvc.yaml: a change there
    also changes the last round's answers.
    """
    first = [row.text for row in read_rows(candidates, Candidate)]
    table = rounds.read()
    answers = {
        arm: [row.text for row in rows if row.split == SPLIT] for arm, rows in responses.items()
    }
    return {
        arm: alarms.length_drift(
            (answers[arm], answers[base]),
            [
                (
                    [row.text for row in read_rows(folder / key / "candidates.jsonl", Candidate)],
                    first,
                )
                for key in rounds.earlier_students(table, arm)
            ],
        )
        for arm in responses
        if arm != base
    }


def alarms_by_arm(
    texts: TextMeasures,
    drifted: Mapping[str, Sequence[Mapping[str, Any]]],
    limits: Limits,
    arms: Iterable[str],
) -> dict[str, dict[str, dict[str, float]]]:
    """{arm: its raised alarms on the test inputs}, without the arms that raise none."""
    found = {
        arm: alarms.raised_alarms(
            texts[arm][SPLIT], texts["teacher"][SPLIT], drifted.get(arm, []), limits
        )
        for arm in arms
        if SPLIT in texts.get(arm, {}) and SPLIT in texts.get("teacher", {})
    }
    return {arm: raised for arm, raised in found.items() if raised}
