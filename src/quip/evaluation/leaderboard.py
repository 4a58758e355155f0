"""Leaderboard of the arms over all verdicts: summaries, differences, ratings, judge agreement.

Turns critiques into the blocks of wtr.json; the arithmetic is in `quip.evaluation.metrics`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, get_args

from pydantic import Field

from quip.core.params import Section
from quip.core.records import Critique, Split
from quip.critics import debiasing
from quip.critics.debiasing import Debias
from quip.evaluation.metrics import (
    bradley_terry,
    paired_differences,
    preference_leakage,
    text_metrics,
    tie_rule,
    win_tie_rate,
)
from quip.evaluation.metrics.interrater import cohens_kappa
from quip.runtime.errors import DataError

SPLITS = get_args(Split)
SPLIT = "test"
TEACHER = "teacher"
Cells = dict[str, dict[str, dict[str, Any]]]
"""{name: {split: {judge: summary}}}, or one of its levels."""


class Counting(Section):
    """Section `evaluate`."""

    tie_margin: float = Field(ge=0, lt=0.5)
    resamples: int = Field(ge=100)
    seed: int = Field(ge=0)


class Leaderboard:
    """The blocks of wtr.json, all computed with the same counting and debiasing settings."""

    def __init__(self, counting: Counting, debias: Debias) -> None:
        self.counting, self.debias = counting, debias

    def judged_input(self, row: Critique) -> win_tie_rate.JudgedInput:
        return win_tie_rate.JudgedInput(
            input=row.input,
            preference=debiasing.calibrated_preference(row, self.debias),
            flipped=debiasing.order_flips(row.forward, row.backward),
            length_ratio=text_metrics.length_ratio(row.a, row.b),
            agreed=tie_rule.both_orders(row),
        )

    def by_split_and_judge(
        self, rows: Iterable[Critique]
    ) -> dict[str, dict[str, list[win_tie_rate.JudgedInput]]]:
        """{split: {judge: inputs}}, with splits and judges in a fixed order."""
        cells: dict[str, dict[str, list[win_tie_rate.JudgedInput]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for row in rows:
            cells[row.split][row.judge].append(self.judged_input(row))
        return {
            split: {judge: cells[split][judge] for judge in sorted(cells[split])}
            for split in SPLITS
            if split in cells
        }

    def summaries(self, rows: Iterable[Critique], name: str) -> dict[str, dict[str, Any]]:
        """{split: {judge: summary}} of one arm, control or duel."""
        rules = self.counting
        return {
            split: {
                judge: with_context(
                    f"{name}, {split}, judge '{judge}'",
                    partial(
                        win_tie_rate.summarise, found, rules.tie_margin, rules.resamples, rules.seed
                    ),
                )
                for judge, found in judges.items()
            }
            for split, judges in self.by_split_and_judge(rows).items()
        }

    def summaries_by_name(self, rows: Iterable[Critique], name: Callable[[Critique], str]) -> Cells:
        """{name: summaries} of the rows grouped by `name`, in order of first appearance."""
        groups: dict[str, list[Critique]] = defaultdict(list)
        for row in rows:
            groups[name(row)].append(row)
        return {key: self.summaries(group, key) for key, group in groups.items()}

    def differences(self, judged: Mapping[str, Sequence[Critique]], base: str) -> Cells:
        """{arm: {split: {judge: difference to the base}}}; p_holm is corrected for the number of
        arms that one judge compares on one split."""
        rules = self.counting
        cells = {arm: self.by_split_and_judge(rows) for arm, rows in judged.items()}
        found: Cells = {
            arm: {
                split: {
                    judge: with_context(
                        f"{arm} less {base}, {split}, judge '{judge}'",
                        partial(
                            paired_differences.paired_difference,
                            rows,
                            cells[base][split][judge],
                            rules.tie_margin,
                            rules.resamples,
                            rules.seed,
                        ),
                    )
                    for judge, rows in judges.items()
                    if judge in cells[base].get(split, {})
                }
                for split, judges in splits.items()
            }
            for arm, splits in cells.items()
            if arm != base
        }
        add_holm_correction(found)
        return found

    def add_sign_tests(self, duels: Cells, base: str) -> None:
        """Add p and p_holm of the sign test to the cells of every duel with the base arm."""
        with_base = {name: duel for name, duel in duels.items() if base in name.split("_vs_")}
        for splits in with_base.values():
            for judges in splits.values():
                for cell in judges.values():
                    won, lost = (round(cell[key] * cell["n"]) for key in ("win", "loss"))
                    cell["p"] = paired_differences.sign_test(won, lost)
        add_holm_correction(with_base)

    def points(self, row: Critique) -> float | None:
        """1 for a win of `a`, 1/2 for a tie, 0 for a loss; None when the verdict is unreadable."""
        judged = self.judged_input(row)
        readable = judged.preference is not None
        return win_tie_rate.points(judged, self.counting.tie_margin) if readable else None

    def judge_agreement(
        self, rows: Iterable[Critique], arms: Cells, ratings: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """{"one and other": agreement} of every two judges: Cohen's kappa on the comparisons that
        both could read, and Kendall's tau of the arms by score and of all names by rating."""
        outcomes: dict[str, dict[tuple[str, str, str], str]] = defaultdict(dict)
        for row in rows:
            found = debiasing.calibrated_preference(row, self.debias)
            if found is not None:
                key = (row.name_a, row.name_b, row.input)
                outcomes[row.judge][key] = tie_rule.outcome(found, self.counting.tie_margin)
        tables = {}
        for one, other in combinations(sorted(outcomes), 2):
            if both := [key for key in outcomes[one] if key in outcomes[other]]:
                first, second = ([outcomes[judge][key] for key in both] for judge in (one, other))
                tables[f"{one} and {other}"] = {
                    **cohens_kappa(first, second, self.counting.resamples, self.counting.seed),
                    "order_of_arms": bradley_terry.rank_correlation(
                        *shared_scores(arms, one, other)
                    ),
                    "order_of_all": bradley_terry.rank_correlation(
                        *shared_ratings(ratings, one, other)
                    ),
                }
        return tables

    def ratings(self, rows: Iterable[Critique]) -> dict[str, dict[str, Any]]:
        """{judge: Bradley-Terry ratings of all names compared on the test inputs}."""
        verdicts: dict[str, list[bradley_terry.Match]] = defaultdict(list)
        for row in rows:
            points = self.points(row)
            if points is not None and row.split == SPLIT and row.name_a != row.name_b:
                verdicts[row.judge].append(
                    bradley_terry.Match(row.input, row.name_a, row.name_b, points)
                )
        return {
            judge: bradley_terry.ratings(found, TEACHER, self.counting.seed)
            for judge, found in sorted(verdicts.items())
        }

    def leakage(
        self, judged: Mapping[str, Iterable[Critique]], roles: Mapping[str, Any], base: str
    ) -> list[dict[str, Any]]:
        """The leakage audit over the arms' verdicts against the teacher on the test inputs."""
        points: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for arm, rows in judged.items():
            for row in rows:
                value = self.points(row)
                if value is not None and row.split == SPLIT:
                    points[row.judge][arm][row.input] = value
        return preference_leakage.leakage_audit(
            points, roles, base, self.counting.resamples, self.counting.seed
        )


def with_context(context: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `compute()`; a DataError is raised again with `context`, its cell, in front."""
    try:
        return compute()
    except DataError as error:
        raise DataError(f"{context}: {error}") from None


def add_holm_correction(cells: Cells) -> None:
    """Add p_holm to each cell: p corrected for the number of names per split and judge."""
    families: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, splits in cells.items():
        for split, judges in splits.items():
            for judge, cell in judges.items():
                families[split, judge][name] = cell
    for family in families.values():
        corrected = paired_differences.holm_correction(
            {name: cell["p"] for name, cell in family.items()}
        )
        for name, cell in family.items():
            cell["p_holm"] = corrected[name]


def shared_scores(arms: Cells, one: str, other: str) -> tuple[list[float], list[float]]:
    """The test scores by judge `one` and by judge `other` of the arms that both judged."""
    cells = [splits.get(SPLIT, {}) for splits in arms.values()]
    both = [cell for cell in cells if one in cell and other in cell]
    first, second = ([cell[judge]["score"] for cell in both] for judge in (one, other))
    return first, second


def shared_ratings(
    ratings: Mapping[str, Mapping[str, Any]], one: str, other: str
) -> tuple[list[float], list[float]]:
    """The ratings by judge `one` and by judge `other` of the names that both rate."""
    a, b = ratings.get(one, {}), ratings.get(other, {})
    names = [name for name in a if name in b]
    return [a[name]["rating"] for name in names], [b[name]["rating"] for name in names]
