"""Results table: the text that `evaluate` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from quip.core.records import Outcome
from quip.evaluation.leaderboard import Cells

OUTCOMES = get_args(Outcome)


def flat_cells(block: dict[str, Cells]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(name, split, judge, summary) of every cell of a block of wtr.json."""
    for name, splits in block.items():
        for split, judges in splits.items():
            for judge, cell in judges.items():
                yield name, split, judge, cell


def render_table(result: dict[str, Any]) -> str:
    """The content of wtr.json as text for the terminal, one line per cell."""
    head = f"{'':<20}{'split':<6}{'judge':<14}{'WTR':<20}{'score':<20}{'W/T/L %':<12}{'n':>5}"
    lines = [head]
    for title, block in (
        ("against the teacher", "arms"),
        ("controls", "controls"),
        ("head to head", "duels"),
    ):
        if result[block]:
            lines += [f"{title}", *(result_line(*row) for row in flat_cells(result[block]))]
    if result.get("differences"):
        lines.append(f"less {result['settings']['base']}, against the teacher, paired by input")
        lines += [difference_line(*row) for row in flat_cells(result["differences"])]
    lines += [
        f"judges {pair}: {agreement_text(found)}"
        for pair, found in result.get("judges", {}).items()
    ]
    lines += [
        f"rating by {judge}, teacher 0: "
        + ", ".join(f"{name} {row['rating']:+.0f}" for name, row in rows.items())
        for judge, rows in result.get("ratings", {}).items()
    ]
    lines += [
        f"alarm: {arm}, {name} {past['value']:.2f}, limit {past['limit']:.2f}"
        for arm, alarms in result.get("alarms", {}).items()
        for name, past in alarms.items()
    ]
    return "\n".join(lines)


def difference_line(name: str, split: str, judge: str, cell: Mapping[str, Any]) -> str:
    plain, at_length = (
        estimate_text(cell[key], cell[ends])
        for key, ends in (("difference", "ci95"), ("at_length", "at_length_ci95"))
    )
    return (
        f"  {name:<18}{split:<6}{judge:<14}{plain:<21}at equal length {at_length:<21}"
        f"Holm p {cell['p_holm']:.3f}"
    )


def agreement_text(found: Mapping[str, Any]) -> str:
    tau = found["order_of_all"]["tau"]
    order = (
        "" if tau is None else f"; Kendall's tau {tau:.2f} of {found['order_of_all']['n']} rated"
    )
    kappa = estimate_text(found["kappa"], found["ci95"])
    return f"Cohen's kappa {kappa} on {found['n']} comparisons{order}"


def result_line(name: str, split: str, judge: str, cell: dict[str, Any]) -> str:
    shares = "/".join(f"{100 * cell[key]:.0f}" for key in OUTCOMES)
    return (
        f"  {name:<18}{split:<6}{judge:<14}{estimate_text(cell['wtr'], cell['ci95']):<20}"
        f"{estimate_text(cell['score'], cell['score_ci95']):<20}{shares:<12}{cell['n']:>5}"
    )


def estimate_text(value: float, ends: Sequence[float]) -> str:
    return f"{value:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"
