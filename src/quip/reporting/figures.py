"""The figures of the report, each with its SVG, alt text and caption."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any, NamedTuple

from quip.critics.debiasing import Debias
from quip.reporting import claims, svg_plots, tables
from quip.reporting.claims import SPLIT
from quip.reporting.run_results import RunResults

TERMS = {
    "token accuracy": "token_accuracy",
    "reward accuracy": "reward_margin",
    "reward margin": "reward_margin",
    "log-probability": "logp",
}
"""{panel of a training curve: entry of the glossary}; `loss` for the other panels."""


MOST_POINTS = 2000
"""Most points of an arm in a scatter plot; more would only enlarge the page."""


class Drawing(NamedTuple):
    name: str
    section: str
    svg: str
    alt: str
    caption: str
    term: str
    """The glossary entry of the drawn number."""


def draw_figures(found: RunResults) -> Iterator[Drawing]:
    """Every figure whose numbers exist, in the order of the page."""
    yield from draw_gains(found)
    yield from draw_results(found)
    yield from draw_ratings(found)
    yield from draw_curves(found)
    yield from draw_lengths(found)
    yield from draw_critic(found)
    yield from draw_positions(found)
    yield from draw_preferences(found)


def draw_gains(found: RunResults) -> Iterator[Drawing]:
    """Each arm's difference to the base against the teacher, raw and at equal length."""
    rows = [
        (f"{verdict['arm']} · {line['judge']}{what}", cell[key], *cell[ends])
        for verdict in claims.arm_verdicts(found.wtr)
        for line in verdict["judges"]
        if (cell := line["difference"])
        for key, ends, what in (
            ("difference", "ci95", ""),
            ("at_length", "at_length_ci95", ", equal length"),
        )
    ]
    if rows:
        base = found.wtr["settings"].get("base", "sft")
        yield Drawing(
            "differences",
            "gains",
            svg_plots.intervals("differences", rows, f"difference to {base}", 0.0, None),
            f"Difference in score to {base}: "
            + "; ".join(
                f"{label} {value:+.2f} {claims.interval_text(ends)}" for label, value, *ends in rows
            ),
            f"Score of each arm minus that of {base} on the same {SPLIT} inputs, 95 % interval. "
            "Blue: more, orange: less, grey: not shown.",
            "difference",
        )


def draw_ratings(found: RunResults) -> Iterator[Drawing]:
    for judge, rows in found.wtr.get("ratings", {}).items():
        marks = [(name, row["rating"], *row["ci95"]) for name, row in rows.items()]
        name = f"ratings-{judge}"
        yield Drawing(
            name,
            "ratings",
            svg_plots.intervals(name, marks, "rating, teacher = 0", 0.0, None),
            f"Ratings by {judge}: "
            + "; ".join(
                f"{label} {value:+.0f} [{low:.0f}, {high:.0f}]" for label, value, low, high in marks
            ),
            f"Ratings by judge {judge} with 95 % interval; the teacher is 0.",
            "rating",
        )


def draw_results(found: RunResults) -> Iterator[Drawing]:
    blocks = [
        ("arms", "Each arm against the teacher"),
        ("controls", "Controls against the teacher"),
        ("duels", "Arms head to head"),
    ]
    for name, title in blocks:
        cells = tables.cells(found.wtr.get(name, {}))
        if cells:
            many = len({cell["judge"] for cell in cells}) > 1
            labelled = [(tables.label(cell, many), cell) for cell in cells]
            yield draw_scores(name, title, labelled)
            yield draw_outcomes(name, title, labelled)


def draw_scores(name: str, title: str, cells: list[tuple[str, dict[str, Any]]]) -> Drawing:
    marks = [(label, cell["score"], *cell["score_ci95"]) for label, cell in cells]
    return Drawing(
        f"scores-{name}",
        name,
        svg_plots.intervals(f"scores-{name}", marks, "score = win + tie/2"),
        f"{title}, score with interval: "
        + "; ".join(f"{label} {claims.score_text(cell)}" for label, cell in cells),
        f"{title}: score and its 95 % interval. Blue where the interval lies above one half, "
        "orange below.",
        "score",
    )


def draw_outcomes(name: str, title: str, cells: list[tuple[str, dict[str, Any]]]) -> Drawing:
    return Drawing(
        f"outcomes-{name}",
        name,
        svg_plots.outcomes(f"outcomes-{name}", cells),
        f"{title}, shares of outcomes: "
        + "; ".join(f"{label} {tables.outcome_shares(cell)}" for label, cell in cells),
        f"{title}: share of inputs won, tied and lost, in %.",
        "outcome",
    )


def draw_curves(found: RunResults) -> Iterator[Drawing]:
    for arm, table in found.curves.items():
        for panel, lines in tables.curve_panels(table).items():
            name = f"curve-{arm}-{panel.replace(' ', '-')}"
            ends = "; ".join(
                f"{column} from {values[0]:.3g} to {values[-1]:.3g}"
                for column, (_, values) in lines.items()
            )
            yield Drawing(
                name,
                "curves",
                svg_plots.training_curve(name, lines, panel),
                f"{arm}, {panel} by step: {ends}",
                f"{arm}: {panel}",
                TERMS.get(panel, "loss"),
            )


def draw_lengths(found: RunResults) -> Iterator[Drawing]:
    words = tables.word_counts(found.references, found.responses, SPLIT)
    words = {name: counts for name, counts in words.items() if counts}
    if words:
        medians = "; ".join(f"{name} {median(counts):g}" for name, counts in words.items())
        yield Drawing(
            "lengths",
            "lengths",
            svg_plots.lengths("lengths", words),
            f"Words per text on {SPLIT}, medians: {medians}",
            f"Words per text on {SPLIT}: median, the middle half, and 5 % to 95 %.",
            "length_ratio",
        )


def draw_positions(found: RunResults) -> Iterator[Drawing]:
    points = {arm: tables.position_points(rows, SPLIT) for arm, rows in found.verdicts.items()}
    points = {arm: pairs for arm, pairs in points.items() if pairs}
    if points:
        share = tables.first_position_share([point for pairs in points.values() for point in pairs])
        step = -(-max(map(len, points.values())) // MOST_POINTS)
        shown = {arm: pairs[::step] for arm, pairs in points.items()}
        every = "Every verdict" if step == 1 else f"One verdict in {step}"
        yield Drawing(
            "positions",
            "critic",
            svg_plots.positions("positions", shown),
            f"Scatter of both orders; {claims.percent(share)} of the answers name the first text",
            f"{every} on {SPLIT} once. Off the diagonal is position bias: "
            f"{claims.percent(share)} of all answers name the text that is shown first.",
            "position_bias",
        )


def draw_critic(found: RunResults) -> Iterator[Drawing]:
    kinds = found.metrics.get("critic", {}).get("by_kind", {})
    marks = [(k, c["agreement"], *c["ci95"]) for k, c in kinds.items() if c.get("ci95")]
    if marks:
        yield Drawing(
            "critic-kinds",
            "critic",
            svg_plots.intervals("critic-kinds", marks, "agreement with the gold pairs"),
            "Agreement by kind: "
            + "; ".join(
                f"{k} {value:.2f} {claims.interval_text(ends)}" for k, value, *ends in marks
            ),
            "Agreement by kind of pair with 95 % interval; the dashed line is chance.",
            "agreement",
        )
    answers = [row for row in found.gold if row.judge == found.gold[0].judge]
    bins = tables.reliability_bins(
        tables.calibration(answers, Debias(**found.wtr["settings"]["debias"]))
    )
    if bins:
        yield Drawing(
            "critic-reliability",
            "critic",
            svg_plots.reliability("critic-reliability", bins),
            "Confidence and agreement: "
            + "; ".join(f"{mean:.2f} right {share:.2f} of {n}" for mean, share, _, _, n in bins),
            "Agreement of the critic by its confidence, with the number of pairs. On the dashed "
            "line the critic is right as often as it is confident.",
            "reliability",
        )


def draw_preferences(found: RunResults) -> Iterator[Drawing]:
    if found.preferences:
        sure = [row.confidence for row in found.preferences]
        drift = tables.mean_length_ratio([(row.chosen, row.rejected) for row in found.preferences])
        yield Drawing(
            "preferences",
            "preferences",
            svg_plots.histogram("preferences", sure, "confidence of the critic", (0.5, 1.0)),
            f"Confidence of {len(sure)} training pairs, median {median(sure):.2f}",
            f"{len(sure):,} pairs; the chosen text has {drift:.2f} times the words of the "
            "rejected one on average.",
            "confidence",
        )
