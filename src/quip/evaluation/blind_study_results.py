"""Blind study results: people's answers are checked, counted and compared with the judges.

Reads the files that the page saved and its key; returns the content of people.json and gold pairs.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from quip.core.jsonl import read_json, read_rows
from quip.core.records import Critique, GoldPair, Row
from quip.critics import debiasing
from quip.critics.debiasing import Debias
from quip.data import votes
from quip.evaluation import critic_audit
from quip.evaluation.blind_study import BlindPair, StudyKey
from quip.evaluation.metrics import (
    bootstrap,
    interrater,
    text_metrics,
    tie_rule,
    win_tie_rate,
)
from quip.runtime.errors import DataError

AnswerSide = Literal["first", "second"]
Choice = Literal["first", "tie", "second"]
QUESTIONS = {"humor": "WTR-H", "content": "WTR-C", "overall": "overall"}
POINTS: dict[Choice, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
MAJORITY = 0.0
"""Tie margin of people's mean preference: only equal votes for both sides are a tie."""


class PairAnswer(Row):
    """One person's answer to one pair. `left` is the text that was shown as A."""

    pair: str
    left: AnswerSide
    humor: Choice
    content: Choice
    overall: Choice


class AnswerFile(Row):
    """A file of answers that the page saved. `sum` is a CRC-32 of its content, see `checksum`."""

    page: str
    rater: str
    started: str
    saved: str
    answers: list[PairAnswer]
    sum: str


# ---- checking


def read_answer_files(paths: Sequence[Path], key: StudyKey, partial: bool) -> list[AnswerFile]:
    """Read the answer files of one page.

    Raises DataError, in one line that names the file, when a file is missing, not an answer file,
    of another page, altered, incomplete (unless `partial`), or the second file of one rater."""
    found: dict[str, tuple[Path, AnswerFile]] = {}
    for path in paths:
        answer_file = read_answer_file(path, key, partial)
        rater = answer_file.rater.casefold()
        if rater in found:
            raise DataError(
                f"{path}: '{answer_file.rater}' has answered in {found[rater][0]} already. "
                "Leave one of the two files out; give a second person another name."
            )
        found[rater] = path, answer_file
    return [answer_file for _, answer_file in found.values()]


def read_answer_file(path: Path, key: StudyKey, partial: bool) -> AnswerFile:
    """Read one answer file; the errors are those of `read_answer_files`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        answer_file = AnswerFile.model_validate(read_json(path))
    except (ValidationError, UnicodeDecodeError, DataError):
        raise DataError(f"{path}: not an answer file saved by the page.") from None
    if answer_file.page != key.page:
        raise DataError(
            f"{path}: answers to another page ({answer_file.page}, the key is of {key.page}). Give "
            "the key of that page with --key."
        )
    if answer_file.sum != checksum(answer_file, key):
        raise DataError(f"{path}: altered since the page saved it. Ask for the file again.")
    if len(answer_file.answers) < len(key.pairs) and not partial:
        raise DataError(
            f"{path}: incomplete, {len(answer_file.answers)} of {len(key.pairs)} pairs are "
            "answered. Ask for the rest, or count the answered ones with --partial."
        )
    return answer_file


def checksum(answer_file: AnswerFile, key: StudyKey) -> str:
    """CRC-32 of page, rater, and the texts and answers of every pair, one per line, as the page
    computes it. It detects edits and a changed page; it is not a signature. Returns "" for answers
    to unknown pairs or two answers to one pair."""
    answers = {answer.pair: answer for answer in answer_file.answers}
    lines = [answer_file.page, answer_file.rater]
    for pair in key.pairs:
        answer = answers.pop(pair.id, None)
        fields = [answer.left, answer.humor, answer.content, answer.overall] if answer else [""] * 4
        lines += [pair.id, pair.literal, *pair.texts, *fields]
    if answers or len({answer.pair for answer in answer_file.answers}) < len(answer_file.answers):
        return ""  # an unknown pair, or two answers to one pair
    content = "\n".join(lines).encode()
    return f"{zlib.crc32(content):08x}"


# ---- counting

ChoicesByPair = Mapping[str, Sequence[Choice]]
"""{pair id: the choice of every person who answered it}, for one question."""


def choices_by_pair(question: str, raters: Iterable[AnswerFile]) -> dict[str, list[Choice]]:
    found: dict[str, list[Choice]] = defaultdict(list)
    for answer_file in raters:
        for answer in answer_file.answers:
            found[answer.pair].append(getattr(answer, question))
    return found


def mean_preferences(
    key: StudyKey, choices: ChoicesByPair
) -> dict[tuple[str, str], list[tuple[BlindPair, float, bool]]]:
    """{(a, b): [(pair, mean preference for a, whether a is its first text)]}.

    The preference is in [0, 1]; it is one half for two equal texts."""
    found: dict[tuple[str, str], list[tuple[BlindPair, float, bool]]] = {
        sides: [] for sides in key.sides
    }
    for pair in [*key.pairs, *key.same]:
        forward = pair.names in found
        chosen = choices.get(pair.id, ["tie"] if pair in key.same else [])
        if chosen:
            value = sum(POINTS[choice] for choice in chosen) / len(chosen)
            sides = pair.names if forward else pair.names[::-1]
            found[sides].append((pair, value if forward else 1 - value, forward))
    return found


def summarise(
    key: StudyKey,
    raters: Sequence[AnswerFile],
    verdicts: Sequence[Critique],
    debias: Debias,
    tie_margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The content of people.json: for each question the results of every comparison, the agreement
    between people and the agreement with every judge; and the raters and pairs that were read."""
    by_judge = preferences_by_judge(verdicts, debias)
    found: dict[str, Any] = {}
    for question in QUESTIONS:
        choices = choices_by_pair(question, raters)
        people = mean_preferences(key, choices)
        found[question] = {
            "results": {
                f"{a}_vs_{b}": summarise_comparison(rows, resamples, seed)
                for (a, b), rows in people.items()
                if rows
            },
            "people": rater_agreement(key, raters, question, resamples, seed),
            "judges": {
                judge: judge_agreement(people, judged, tie_margin, resamples, seed)
                for judge, judged in sorted(by_judge.items())
                if any(judge_preference(judged, pair) is not None for pair in key.pairs)
            },
        }
    return {
        "page": key.page,
        "split": key.split,
        "raters": [answer_file.rater for answer_file in raters],
        "pairs": len(key.pairs),
        "same": len(key.same),
        "questions": found,
    }


def summarise_comparison(
    rows: Sequence[tuple[BlindPair, float, bool]], resamples: int, seed: int
) -> dict[str, Any]:
    """`win_tie_rate.summarise` of one comparison. The votes on an input form one preference, so
    that the intervals are over inputs and not over votes."""
    comparisons = []
    for pair, value, forward in rows:
        a, b = pair.texts if forward else pair.texts[::-1]
        comparisons.append(
            win_tie_rate.JudgedInput(pair.input, value, None, text_metrics.length_ratio(a, b))
        )
    found = win_tie_rate.summarise(comparisons, MAJORITY, resamples, seed)
    return {name: value for name, value in found.items() if name not in ("flip_rate", "unparsed")}


def rater_agreement(
    key: StudyKey, raters: Sequence[AnswerFile], question: str, resamples: int, seed: int
) -> dict[str, Any]:
    """Agreement between people on the shown pairs: Krippendorff's alpha over (first text, tie,
    second text), with interval; and two habits: the share of ties, and the share of A, the text
    shown first, among the votes that are not ties."""
    order = list(POINTS)
    answers = [{answer.pair: answer for answer in answer_file.answers} for answer_file in raters]
    values = [
        [
            order.index(getattr(by_pair[pair.id], question)) if pair.id in by_pair else None
            for by_pair in answers
        ]
        for pair in key.pairs
    ]
    all_answers = [answer for answer_file in raters for answer in answer_file.answers]
    decided = [answer for answer in all_answers if getattr(answer, question) != "tie"]
    return {
        "alpha_ordinal": interrater.krippendorff_alpha(values, "ordinal"),
        "ci95": interrater.alpha_interval(values, "ordinal", resamples, seed),
        "alpha_nominal": interrater.krippendorff_alpha(values, "nominal"),
        "ties": 1 - len(decided) / len(all_answers) if all_answers else 0.0,
        "first_share": bootstrap.mean(
            getattr(answer, question) == answer.left for answer in decided
        ),
    }


# ---- compared with the judges


JudgePreferences = Mapping[tuple[str, str, str], float]
"""{(literal, text, other text): one judge's preference for the text, in [0, 1]}."""


def preferences_by_judge(
    verdicts: Iterable[Critique], debias: Debias
) -> dict[str, dict[Any, float]]:
    found: dict[str, dict[Any, float]] = defaultdict(dict)
    for row in verdicts:
        value = debiasing.calibrated_preference(row, debias)
        if value is not None:
            found[row.judge][row.literal, row.a, row.b] = value
            found[row.judge][row.literal, row.b, row.a] = 1 - value
    return found


def read_verdicts(folder: Path) -> list[Critique]:
    """Every verdict in the folder; empty before the stage `judge` has run."""
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.stat().st_size]
    return [row for path in files for row in read_rows(path, Critique)]


def judge_preference(
    judged: JudgePreferences, pair: BlindPair, forward: bool = True
) -> float | None:
    first, second = pair.texts if forward else pair.texts[::-1]
    return judged.get((pair.literal, first, second))


def judge_agreement(
    people: Mapping[Any, Sequence[tuple[BlindPair, float, bool]]],
    judged: JudgePreferences,
    tie_margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Agreement of a judge with the people on the shown pairs that both compared.

    `kappa` is Cohen's kappa of win, tie and loss. `agreement`, as in the audit, is the share of
    pairs on which the judge prefers the text that more people preferred; pairs without a majority
    are left out, and `decided` counts the others."""
    both = [
        (value, judge)
        for rows in people.values()
        for pair, value, forward in rows
        if pair.texts[0] != pair.texts[1]
        and (judge := judge_preference(judged, pair, forward)) is not None
    ]
    outcomes = [
        (tie_rule.outcome(value, MAJORITY), tie_rule.outcome(judge, tie_margin))
        for value, judge in both
    ]
    found = interrater.cohens_kappa(
        [one for one, _ in outcomes], [other for _, other in outcomes], resamples, seed
    )
    scores = [
        critic_audit.agreement(judge if value > 0.5 else 1 - judge)
        for value, judge in both
        if value != 0.5
    ]
    if scores:
        found["agreement"] = critic_audit.rounded_mean(scores)
        found["agreement_ci95"] = bootstrap.rounded_interval(scores, resamples, seed)
    return {**found, "decided": len(scores)}


# ---- gold pairs and the summary in the terminal


def gold_pairs(key: StudyKey, question: str, raters: Sequence[AnswerFile]) -> list[GoldPair]:
    """One gold pair (`quip.data.votes`) for every shown pair of which more people preferred one
    text."""
    choices = choices_by_pair(question, raters)
    found = []
    for pair in key.pairs:
        value = sum(POINTS[choice] - 0.5 for choice in choices.get(pair.id, []))
        choice: votes.Choice = "left" if value > 0 else "right" if value < 0 else "neither"
        shown = votes.ShownPair(pair.literal, *pair.texts, *pair.names)
        if gold_pair := votes.gold_pair(f"{key.page[:8]}-{pair.id}", shown, choice):
            found.append(gold_pair)
    return found


def summary_text(found: Mapping[str, Any]) -> str:
    """The results as text for the terminal."""
    lines = [
        f"{len(found['raters'])} people ({', '.join(found['raters'])}), {found['pairs']} pairs of "
        f"split {found['split']}, {found['same']} more of equal texts, counted as ties",
        f"{'':<20}{'question':<11}{'win-tie rate':<20}{'score':<20}{'W/T/L %':<12}{'n':>4}",
    ]
    names = list(dict.fromkeys(n for q in found["questions"].values() for n in q["results"]))
    for name in names:
        for question, short in QUESTIONS.items():
            cell = found["questions"][question]["results"].get(name)
            if cell:
                lines.append(f"{name.replace('_vs_', ' vs '):<20}{result_line(short, cell)}")
    for question, short in QUESTIONS.items():
        lines += agreement_lines(short, found["questions"][question])
    return "\n".join(lines)


def result_line(question: str, cell: Mapping[str, Any]) -> str:
    shares = "/".join(f"{100 * cell[key]:.0f}" for key in ("win", "tie", "loss"))
    return (
        f"{question:<11}{estimate_text(cell['wtr'], cell['ci95']):<20}"
        f"{estimate_text(cell['score'], cell['score_ci95']):<20}{shares:<12}{cell['n']:>4}"
    )


def agreement_lines(question: str, cell: Mapping[str, Any]) -> list[str]:
    people = cell["people"]
    alpha = "not defined (it takes two people and two different answers)"
    if people["alpha_ordinal"] is not None:
        alpha = estimate_text(people["alpha_ordinal"], people["ci95"])
    lines = [
        f"{question}: Krippendorff's alpha {alpha}; ties {100 * people['ties']:.0f} %, of the "
        f"others {100 * people['first_share']:.0f} % for the text shown first"
    ]
    for judge, found in cell["judges"].items():
        line = (
            f"  judge {judge}: kappa {estimate_text(found['kappa'], found['ci95'])} on {found['n']}"
        )
        if "agreement" in found:
            share = estimate_text(found["agreement"], found["agreement_ci95"])
            line += f"; agrees with people on {share} of the {found['decided']} they decided"
        lines.append(line)
    return lines


def estimate_text(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
