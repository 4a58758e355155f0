"""Tables of the report: rows, points of figures and samples from the measured data. Pure."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scipy.stats import binomtest

from quip.core.records import Critique, Reference, Response
from quip.core.text import count_words, digest
from quip.critics import debiasing
from quip.critics.debiasing import Debias
from quip.evaluation.metrics import text_metrics, tie_rule
from quip.reporting import call_costs
from quip.reporting.claims import CHANCE

NO_BREAK = "\u00a0"
Points = list[tuple[float, float]]
Table = dict[str, tuple[list[float], list[float]]]
Cells = dict[str, dict[str, dict[str, Any]]]
PIPELINE = ("prepare", "teacher", "imitation", "audit", "candidates", "critique", "preferences")
COUNT_KEYS = ("counts", "n")
EXAMPLE_KEYS = ("examples", "example", "first")
PANELS = {
    "loss": "loss",
    "token_accuracy": "token accuracy",
    "accurac": "reward accuracy",
    "margin": "reward margin",
    "logp": "log-probability",
}


def cells(block: Mapping[str, Cells]) -> list[dict[str, Any]]:
    """{name: {split: {judge: summary}}} as one flat row per summary."""
    return [
        {"name": name, "split": split, "judge": judge, **cell}
        for name, splits in block.items()
        for split, judges in splits.items()
        for judge, cell in judges.items()
    ]


def keep_together(text: str) -> str:
    """`text` with no line break inside an interval, before a per cent sign or around n's `=`."""
    return re.sub(r"(?<=\d,) (?=[\d.]+\])|(?<=\d) (?=%)|(?<=n) (?==)|(?<==) (?=\d)", NO_BREAK, text)


def label(row: Mapping[str, Any], many_judges: bool) -> str:
    """The label of a row in a figure, with the judge only if there are several."""
    name = str(row["name"]).replace("_vs_", " vs ")
    return " · ".join([name, row["split"], *([row["judge"]] if many_judges else [])])


def outcome_shares(cell: Mapping[str, float]) -> str:
    """Win / tie / loss in whole per cent."""
    return " / ".join(f"{100 * cell[key]:.0f}" for key in ("win", "tie", "loss"))


def text_rows(block: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """{name: {split: measures}} as one flat row per name and split."""
    return [
        {"name": name, "split": split, **measured}
        for name, splits in block.items()
        for split, measured in splits.items()
    ]


def sample_inputs(references: Iterable[Reference], split: str, count: int) -> list[Reference]:
    """The inputs of `split` with the smallest sha256 of their id, so that nobody chooses them."""
    of_split = [row for row in references if row.split == split]
    return sorted(of_split, key=lambda row: digest(row.input))[:count]


def sample_rows(
    references: Iterable[Reference],
    responses: Mapping[str, Sequence[Response]],
    verdicts: Mapping[str, Sequence[Critique]],
    tie_margin: float,
    debias: Debias,
) -> list[dict[str, Any]]:
    """Literal, teacher and every arm side by side, with each judge's verdict on the arm."""
    written = {arm: {row.input: row.text for row in rows} for arm, rows in responses.items()}
    judged: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for arm, rows in verdicts.items():
        for row in rows:
            judged[arm, row.input].append(sample_verdict(row, tie_margin, debias))
    return [
        {
            "id": row.input,
            "literal": row.literal,
            "teacher": row.paraphrases[0],
            "arms": [
                {
                    "arm": arm,
                    "text": written[arm].get(row.input),
                    "verdicts": judged[arm, row.input],
                }
                for arm in responses
            ],
        }
        for row in references
    ]


def sample_verdict(row: Critique, tie_margin: float, debias: Debias) -> dict[str, Any]:
    """{"judge", "outcome": win, tie, loss or unread, "preference"} of one comparison."""
    value = debiasing.calibrated_preference(row, debias)
    found = "unread" if value is None else tie_rule.outcome(value, tie_margin)
    return {"judge": row.judge, "outcome": found, "preference": value}


def position_points(rows: Iterable[Critique], split: str) -> Points:
    """(p of a shown first, p of a shown second) of the verdicts by critics that see positions."""
    return [
        (row.forward.p_first, 1 - row.backward.p_first)
        for row in rows
        if row.split == split and row.forward.source not in ("identical", "learned")
        if row.forward.p_first is not None and row.backward.p_first is not None
    ]


def first_position_share(points: Points) -> float:
    """Share of single answers that name the text shown first; one half without position bias."""
    named = [first > 0.5 for first, _ in points] + [second < 0.5 for _, second in points]
    return sum(named) / len(named) if named else 0.5


def calibration(rows: Iterable[Critique], debias: Debias) -> Points:
    """(confidence, 1.0 if the critic is right else 0.0) of every gold pair that it decided.

    Confidence is max(p, 1 - p) of the debiased preference p; one text is named "better".
    """
    found = []
    for row in rows:
        value = debiasing.calibrated_preference(row, debias)
        if value is not None and value != 0.5 and "better" in (row.name_a, row.name_b):
            right = (value > 0.5) == (row.name_a == "better")
            found.append((max(value, 1 - value), float(right)))
    return found


def reliability_bins(
    points: Points, count: int = 5
) -> list[tuple[float, float, float, float, int]]:
    """(mean confidence, agreement, Wilson low, high, pairs) of each bin of equal width on [0.5, 1]
    that is not empty."""
    groups: dict[int, Points] = defaultdict(list)
    for point in points:
        groups[min(int((point[0] - 0.5) * 2 * count), count - 1)].append(point)
    found = []
    for _, group in sorted(groups.items()):
        right, total = int(sum(agreed for _, agreed in group)), len(group)
        ends = binomtest(right, total).proportion_ci(method="wilson")
        confidence = sum(value for value, _ in group) / total
        found.append((confidence, right / total, float(ends.low), float(ends.high), total))
    return found


def word_counts(
    references: Iterable[Reference], responses: Mapping[str, Iterable[Response]], split: str
) -> dict[str, list[int]]:
    """Words per text on one split, for the literals, the teacher and every arm."""
    rows = [row for row in references if row.split == split]
    return {
        "literal": [count_words(row.literal) for row in rows],
        "teacher": [count_words(row.paraphrases[0]) for row in rows],
        **{
            arm: [count_words(row.text) for row in found if row.split == split]
            for arm, found in responses.items()
        },
    }


def mean_length_ratio(pairs: Sequence[tuple[str, str]]) -> float:
    """Mean of words(chosen) / words(rejected) over training pairs; above 1 they favour length."""
    return sum(text_metrics.length_ratio(*pair) for pair in pairs) / len(pairs)


def curve_panels(table: Table) -> dict[str, Table]:
    """The columns of a training curve by panel: {panel: {column: (steps, values)}}."""
    found: dict[str, Table] = {}
    for column, line in table.items():
        panel = panel_of(column)
        if panel and line[1]:
            found.setdefault(panel, {})[column] = line
    return found


def panel_of(column: str) -> str | None:
    """The panel of a column, by the first key of PANELS in its name; None: not shown."""
    return next((panel for word, panel in PANELS.items() if word in column.lower()), None)


def funnel(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One block per stage, in pipeline order: every count, with its first example."""
    known = [stage for stage in PIPELINE if stage in metrics]
    order = known + sorted(set(metrics) - set(known))
    blocks = [(stage, count_rows(metrics[stage])) for stage in order]
    return [
        {"stage": stage, "rows": rows, "examples": any(row["example"] for row in rows)}
        for stage, rows in blocks
        if rows
    ]


def count_rows(value: Any) -> list[dict[str, Any]]:
    """The counts of one metrics file: label, value, share of the largest, first example."""
    found = list(leaves(value))
    examples = {path[-1]: leaf for path, leaf in found if is_example(path, leaf)}
    numbers = [
        (path, leaf) for path, leaf in found if is_count(leaf) and path[-1] not in call_costs.KEYS
    ]
    largest = max((leaf for _, leaf in numbers), default=0)
    return [
        {
            "label": " · ".join(part for part in path if part not in COUNT_KEYS) or path[-1],
            "value": leaf,
            "share": leaf / largest if largest else 0.0,
            "example": examples.get(path[-1]),
        }
        for path, leaf in numbers
    ]


def is_example(path: Sequence[str], leaf: Any) -> bool:
    return isinstance(leaf, str) and any(part in EXAMPLE_KEYS for part in path)


def is_count(leaf: Any) -> bool:
    return isinstance(leaf, int) and not isinstance(leaf, bool)


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every (path, leaf) of nested mappings; lists are leaves."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, (*path, str(key)))
    elif path:
        yield path, value


def settings_rows(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """params.yaml section by section, without `endpoints`, whose addresses are private."""
    return [
        {
            "section": section,
            "rows": [
                (".".join(path), yaml_text(leaf))
                for path, leaf in leaves(value if isinstance(value, Mapping) else {"": value})
            ],
        }
        for section, value in params.items()
        if section != "endpoints"
    ]


def yaml_text(value: Any) -> str:
    """A value as written in params.yaml."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def safety_categories(safety: Mapping[str, Any] | None) -> list[str]:
    """The categories of the safety screen, with those that only words or a classifier found."""
    if safety is None:
        return []
    return list(
        dict.fromkeys([*safety["means"], *(c for f in safety["flagged"].values() for c in f)])
    )


def audit_rows(critic: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The audit as rows of the paper's table 1: the critic, every judge, every further critic.

    `critic` is the content of critic.json; `chance` says whether the interval of the agreement
    reaches chance."""
    if critic is None:
        return []
    groups = [
        ("the critic", critic),
        *((f"judge {name}", found) for name, found in critic.get("judges", {}).items()),
        *critic.get("kinds", {}).items(),
    ]
    return [{"name": name, "chance": found["ci95"][0] <= CHANCE, **found} for name, found in groups]
