"""Answers of people to a blind page: checked, counted, compared with the judges', kept as votes."""

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
from quip.evaluation.blind_study import Key, Pair
from quip.evaluation.metrics import (
    bootstrap,
    interrater,
    text_metrics,
    win_tie_rate,
)
from quip.runtime.errors import DataError

Side = Literal["first", "second"]
Choice = Literal["first", "tie", "second"]
QUESTIONS = {"humor": "WTR-H", "content": "WTR-C", "overall": "overall"}
POINTS: dict[Choice, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
MAJORITY = 0.0
"""The tie margin of people's mean preference: a tie is as many votes on each side."""


class Given(Row):
    """One person on one pair. `left` is the text that was shown as A."""

    pair: str
    left: Side
    humor: Choice
    content: Choice
    overall: Choice


class Returned(Row):
    """A file that the page saved. `sum` is the CRC-32 of what it says, see `checksum`."""

    page: str
    rater: str
    started: str
    saved: str
    answers: list[Given]
    sum: str


# ---- checking


def read(paths: Sequence[Path], key: Key, partial: bool) -> list[Returned]:
    """The answers of each file. Raises DataError, one line that names the file, when a file is no
    such file, of another page, altered, incomplete (unless `partial`), or of a rater who has
    handed in another."""
    found: dict[str, tuple[Path, Returned]] = {}
    for path in paths:
        returned = read_one(path, key, partial)
        rater = returned.rater.casefold()
        if rater in found:
            raise DataError(
                f"{path}: '{returned.rater}' has answered in {found[rater][0]} already. Leave one "
                "of the two files out; of two people the second needs another name."
            )
        found[rater] = path, returned
    return [returned for _, returned in found.values()]


def read_one(path: Path, key: Key, partial: bool) -> Returned:
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    try:
        returned = Returned.model_validate(read_json(path))
    except (ValidationError, UnicodeDecodeError, DataError):
        raise DataError(f"{path}: not a file of answers that the page has saved.") from None
    if returned.page != key.page:
        raise DataError(
            f"{path}: answers to another page ({returned.page}, the key is of {key.page}). Give "
            "the key of that page with --key."
        )
    if returned.sum != checksum(returned, key):
        raise DataError(f"{path}: altered since the page saved it. Ask for the file again.")
    if len(returned.answers) < len(key.pairs) and not partial:
        raise DataError(
            f"{path}: incomplete, {len(returned.answers)} of {len(key.pairs)} pairs are answered. "
            "Ask for the rest, or count what there is with --partial."
        )
    return returned


def checksum(returned: Returned, key: Key) -> str:
    """The CRC-32 of page, rater, and the texts and answers of every pair, one a line, as the page
    makes it. It notices an edit and a changed page; it is no signature."""
    given = {answer.pair: answer for answer in returned.answers}
    lines = [returned.page, returned.rater]
    for pair in key.pairs:
        answer = given.pop(pair.id, None)
        said = [answer.left, answer.humor, answer.content, answer.overall] if answer else [""] * 4
        lines += [pair.id, pair.literal, *pair.texts, *said]
    if given or len({answer.pair for answer in returned.answers}) < len(returned.answers):
        return ""  # pairs the page has not, or one twice
    whole = "\n".join(lines).encode()
    return f"{zlib.crc32(whole):08x}"


# ---- counting

Votes = Mapping[str, Sequence[Choice]]
"""{pair: what every person who answered it chose} of one question."""


def votes_on(question: str, raters: Iterable[Returned]) -> dict[str, list[Choice]]:
    found: dict[str, list[Choice]] = defaultdict(list)
    for returned in raters:
        for answer in returned.answers:
            found[answer.pair].append(getattr(answer, question))
    return found


def preferences(key: Key, given: Votes) -> dict[tuple[str, str], list[tuple[Pair, float, bool]]]:
    """{(a, b): (pair, mean preference for a, whether a is its first text)}; of two equal texts it
    is one half."""
    found: dict[tuple[str, str], list[tuple[Pair, float, bool]]] = {both: [] for both in key.sides}
    for pair in [*key.pairs, *key.same]:
        forward = pair.names in found
        chosen = given.get(pair.id, ["tie"] if pair in key.same else [])
        if chosen:
            value = sum(POINTS[choice] for choice in chosen) / len(chosen)
            both = pair.names if forward else pair.names[::-1]
            found[both].append((pair, value if forward else 1 - value, forward))
    return found


def summarise(
    key: Key,
    raters: Sequence[Returned],
    verdicts: Sequence[Critique],
    debias: Debias,
    tie_margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The content of people.json: {question: results of every comparison, agreement between people,
    agreement with every judge}, and what was read."""
    judged = of_judges(verdicts, debias)
    found: dict[str, Any] = {}
    for question in QUESTIONS:
        given = votes_on(question, raters)
        people = preferences(key, given)
        found[question] = {
            "results": {
                f"{a}_vs_{b}": results(rows, resamples, seed)
                for (a, b), rows in people.items()
                if rows
            },
            "people": between_people(key, raters, question, resamples, seed),
            "judges": {
                judge: with_judge(people, said, tie_margin, resamples, seed)
                for judge, said in sorted(judged.items())
                if any(lookup(said, pair) is not None for pair in key.pairs)
            },
        }
    return {
        "page": key.page,
        "split": key.split,
        "raters": [returned.rater for returned in raters],
        "pairs": len(key.pairs),
        "same": len(key.same),
        "questions": found,
    }


def results(rows: Sequence[tuple[Pair, float, bool]], resamples: int, seed: int) -> dict[str, Any]:
    """`wtr.summarise` of one comparison, an input's votes as one preference, so that the intervals
    are over inputs and not over votes."""
    comparisons = []
    for pair, value, forward in rows:
        a, b = pair.texts if forward else pair.texts[::-1]
        comparisons.append(
            win_tie_rate.Comparison(pair.input, value, None, text_metrics.length_ratio(a, b))
        )
    found = win_tie_rate.summarise(comparisons, MAJORITY, resamples, seed)
    return {name: value for name, value in found.items() if name not in ("flip_rate", "unparsed")}


def between_people(
    key: Key, raters: Sequence[Returned], question: str, resamples: int, seed: int
) -> dict[str, Any]:
    """Krippendorff's alpha over the shown pairs (first text, tie, second text), and two habits:
    the share of ties, and of the votes for a side the share for A, the text shown first."""
    order = list(POINTS)
    answers = [{answer.pair: answer for answer in returned.answers} for returned in raters]
    values = [
        [order.index(getattr(by[pair.id], question)) if pair.id in by else None for by in answers]
        for pair in key.pairs
    ]
    every = [answer for returned in raters for answer in returned.answers]
    took = [answer for answer in every if getattr(answer, question) != "tie"]
    return {
        "alpha_ordinal": interrater.alpha(values, "ordinal"),
        "ci95": interrater.interval(values, "ordinal", resamples, seed),
        "alpha_nominal": interrater.alpha(values, "nominal"),
        "ties": 1 - len(took) / len(every) if every else 0.0,
        "first_share": bootstrap.mean(getattr(answer, question) == answer.left for answer in took),
    }


# ---- beside the judges


Said = Mapping[tuple[str, str, str], float]
"""{(literal, text, other text): a judge's preference for the text}."""


def of_judges(verdicts: Iterable[Critique], debias: Debias) -> dict[str, dict[Any, float]]:
    found: dict[str, dict[Any, float]] = defaultdict(dict)
    for row in verdicts:
        value = debiasing.calibrated_preference(row, debias)
        if value is not None:
            found[row.judge][row.literal, row.a, row.b] = value
            found[row.judge][row.literal, row.b, row.a] = 1 - value
    return found


def read_verdicts(folder: Path) -> list[Critique]:
    """Every verdict there is; none where the pipeline has not judged yet."""
    files = [path for path in sorted(folder.glob("*.jsonl")) if path.stat().st_size]
    return [row for path in files for row in read_rows(path, Critique)]


def lookup(said: Said, pair: Pair, forward: bool = True) -> float | None:
    first, second = pair.texts if forward else pair.texts[::-1]
    return said.get((pair.literal, first, second))


def with_judge(
    people: Mapping[Any, Sequence[tuple[Pair, float, bool]]],
    said: Said,
    tie_margin: float,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """How far a judge agrees with the people on the shown pairs that both compared.

    `kappa` is of win, tie and loss; `agreement`, as in the audit, is over the pairs of which more
    people preferred one text: the share on which the judge prefers the same."""
    both = [
        (value, judge)
        for rows in people.values()
        for pair, value, forward in rows
        if pair.texts[0] != pair.texts[1] and (judge := lookup(said, pair, forward)) is not None
    ]
    outcomes = [
        (win_tie_rate.outcome(value, MAJORITY), win_tie_rate.outcome(judge, tie_margin))
        for value, judge in both
    ]
    found = interrater.between(
        [one for one, _ in outcomes], [other for _, other in outcomes], resamples, seed
    )
    scores = [
        critic_audit.agreement(judge if value > 0.5 else 1 - judge)
        for value, judge in both
        if value != 0.5
    ]
    if scores:
        found["agreement"] = critic_audit.mean(scores)
        found["agreement_ci95"] = bootstrap.mean_interval(scores, resamples, seed)
    return {**found, "decided": len(scores)}


# ---- kept


def gold(key: Key, question: str, raters: Sequence[Returned]) -> list[GoldPair]:
    """One gold pair of every shown pair of which more people preferred one text
    (`quip.data.votes`)."""
    given = votes_on(question, raters)
    found = []
    for pair in key.pairs:
        value = sum(POINTS[choice] - 0.5 for choice in given.get(pair.id, []))
        choice: votes.Choice = "left" if value > 0 else "right" if value < 0 else "neither"
        shown = votes.ShownPair(pair.literal, *pair.texts, *pair.names)
        if kept := votes.gold_pair(f"{key.page[:8]}-{pair.id}", shown, choice):
            found.append(kept)
    return found


def table(found: Mapping[str, Any]) -> str:
    """What a person reads in the terminal."""
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
                lines.append(f"{name.replace('_vs_', ' vs '):<20}{line(short, cell)}")
    for question, short in QUESTIONS.items():
        lines += agreements(short, found["questions"][question])
    return "\n".join(lines)


def line(question: str, cell: Mapping[str, Any]) -> str:
    shares = "/".join(f"{100 * cell[key]:.0f}" for key in ("win", "tie", "loss"))
    return (
        f"{question:<11}{bracket(cell['wtr'], cell['ci95']):<20}"
        f"{bracket(cell['score'], cell['score_ci95']):<20}{shares:<12}{cell['n']:>4}"
    )


def agreements(question: str, cell: Mapping[str, Any]) -> list[str]:
    people = cell["people"]
    alpha = "not defined (it takes two people and two different answers)"
    if people["alpha_ordinal"] is not None:
        alpha = bracket(people["alpha_ordinal"], people["ci95"])
    lines = [
        f"{question}: Krippendorff's alpha {alpha}; ties {100 * people['ties']:.0f} %, of the "
        f"others {100 * people['first_share']:.0f} % for the text shown first"
    ]
    for judge, one in cell["judges"].items():
        said = f"  judge {judge}: kappa {bracket(one['kappa'], one['ci95'])} on {one['n']}"
        if "agreement" in one:
            share = bracket(one["agreement"], one["agreement_ci95"])
            said += f"; agrees with people on {share} of the {one['decided']} they decided"
        lines.append(said)
    return lines


def bracket(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
