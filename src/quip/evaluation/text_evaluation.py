"""The texts that `evaluate` measures: whose they are, on which inputs, how they change by round.

Arms answer every input, the teacher's first paraphrase and the texts of the controls stand beside
them; only splits that were judged are measured.
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
Measured = dict[str, dict[str, dict[str, Any]]]
"""{name: {split: measures}}."""


class Text(NamedTuple):
    """One text to measure: who wrote it, for which input."""

    name: str
    split: str
    input: str
    text: str
    literal: str


def collect(
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


def measure(
    texts: Iterable[Text], meaning: Iterable[Meaning], similarity: Mapping[str, Any]
) -> Measured:
    """Those of `measures`, with `meaning`, the mean cosine of text and literal, and the
    `self_similarity` that the stage `meaning` found, {name: {split: value}}."""
    cells: dict[tuple[str, str], list[Text]] = defaultdict(list)
    for text in texts:
        cells[text.name, text.split].append(text)
    cosines: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in meaning:
        cosines[row.name, row.split].append(row.cosine)
    found: Measured = {}
    for (name, split), group in sorted(cells.items(), key=lambda item: SPLITS.index(item[0][1])):
        cell = text_metrics.describe([(text.text, text.literal) for text in group])
        if (name, split) not in cosines or split not in similarity.get(name, {}):
            raise DataError(
                f"no meaning score for the {split} texts of '{name}'. Run `dvc repro meaning` "
                "again."
            )
        cell["meaning"] = bootstrap.mean(cosines[name, split])
        cell["self_similarity"] = similarity[name][split]
        found.setdefault(name, {})[split] = cell
    return found


def drifts(
    responses: Mapping[str, Sequence[Response]], base: str, candidates: Path, folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """{arm: length by round} of every arm but the base. `candidates` are the warm start's samples;
    those of the student after round r stand in folder/ARM-r, for the rounds of rounds.yaml.

    DVC need not know `folder`: whatever changes there changes the last round's answers too.
    """
    first = [row.text for row in read_rows(candidates, Candidate)]
    table = rounds.read()
    answers = {
        arm: [row.text for row in rows if row.split == SPLIT] for arm, rows in responses.items()
    }
    return {
        arm: alarms.drift(
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


def marks(
    texts: Measured,
    drifted: Mapping[str, Sequence[Mapping[str, Any]]],
    limits: Limits,
    arms: Iterable[str],
) -> dict[str, dict[str, dict[str, float]]]:
    """{arm: the alarms it trips on the test inputs}; arms that trip none are left out."""
    found = {
        arm: alarms.tripped(
            texts[arm][SPLIT], texts["teacher"][SPLIT], drifted.get(arm, []), limits
        )
        for arm in arms
        if SPLIT in texts.get(arm, {}) and SPLIT in texts.get("teacher", {})
    }
    return {arm: past for arm, past in found.items() if past}
