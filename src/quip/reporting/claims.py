"""Claims: the sentences that the numbers of a run support. Pure.

The claim rule: a difference between two arms is claimed only when every paired interval excludes
no difference: the interval of the head-to-head score excludes one half, and that of the difference
of their scores against the teacher excludes zero, each both raw and at equal length
(`quip.evaluation.metrics.length_control`), by every judge, on at least `MIN_INPUTS` inputs.
Otherwise the sentence says that no difference is shown. The caveats (`quip.reporting.caveats`) are
printed beside the claim, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from quip.evaluation.metrics.paired_differences import base_arm

SPLIT = "test"
MIN_INPUTS = 20
CHANCE = 0.5

Numbers = dict[str, Any]


def claim(results: Numbers, split: str = SPLIT) -> str:
    """One paragraph: each arm head to head with `sft`, then each arm against the teacher.

    `results` is the content of wtr.json. Without an arm `sft` the first arm is the one to beat.
    """
    arms = list(results["arms"])
    base = base_arm(arms)
    duels = [sorted((arm, base), key=arms.index) for arm in arms if arm != base]
    heads = [duel_sentence(results, later, earlier, split) for earlier, later in duels]
    return " ".join([*heads, *teacher_sentences(results, split)])


def duel_sentence(results: Numbers, a: str, b: str, split: str) -> str:
    """The head-to-head scores of two arms by all judges, and the claim that they support."""
    cells = results.get("duels", {}).get(f"{a}_vs_{b}", {}).get(split, {})
    if not cells:
        return f"{a} and {b} were not compared head to head on {split}."
    scores = "; ".join(
        f"{score_text(cell)}{at_length_text(cell)}, judged by {judge}"
        for judge, cell in cells.items()
    )
    ruled = claim_rule(a, b, cells, score_differences(results, a, b, split))
    return f"{a} against {b}, head to head on {split}: {scores}. {ruled}"


def score_differences(results: Numbers, a: str, b: str, split: str) -> dict[str, Numbers]:
    """{judge: score of a minus score of b against the teacher}; either may be the base."""
    found: dict[str, dict[str, dict[str, Numbers]]] = results.get("differences", {})
    if a in found and b not in found:
        return found[a].get(split, {})
    return {
        judge: reversed_difference(cell) for judge, cell in found.get(b, {}).get(split, {}).items()
    }


def reversed_difference(cell: Numbers) -> Numbers:
    """The difference with its sign reversed."""
    ends = {key: [-cell[key][1], -cell[key][0]] for key in ("ci95", "at_length_ci95")}
    values = {key: -cell[key] for key in ("difference", "at_length")}
    return {**cell, **ends, **values, "more": cell["less"], "less": cell["more"]}


def arm_verdicts(results: Numbers, split: str = SPLIT) -> list[Numbers]:
    """One entry for every arm but the base: {"arm", "base", "gain": better, worse or None, "why",
    "alarms", "judges": [{"judge", "duel", "difference"}]}; both are those of arm against base."""
    base = base_arm(list(results["arms"]))
    return [arm_verdict(results, arm, base, split) for arm in results["arms"] if arm != base]


def arm_verdict(results: Numbers, arm: str, base: str, split: str) -> Numbers:
    duels = results.get("duels", {})
    cells = duels.get(f"{arm}_vs_{base}", {}).get(split, {}) or {
        judge: reversed_duel(cell)
        for judge, cell in duels.get(f"{base}_vs_{arm}", {}).get(split, {}).items()
    }
    differences = score_differences(results, arm, base, split)
    seen = {direction(cell, differences.get(judge)) for judge, cell in cells.items()}
    gain = seen.pop() if len(seen) == 1 and seen <= {"better", "worse"} else None
    return {
        "arm": arm,
        "base": base,
        "gain": gain,
        "why": claim_rule(arm, base, cells, differences) if cells else "They were not compared.",
        "alarms": list(results.get("alarms", {}).get(arm, {})),
        "judges": [
            {"judge": judge, "duel": cells.get(judge), "difference": differences.get(judge)}
            for judge in dict.fromkeys([*cells, *differences])
        ],
    }


def reversed_duel(cell: Numbers) -> Numbers:
    """The figures of a duel with its two sides swapped."""
    found = dict(cell)
    for key in ("score", "score_at_length"):
        if key in cell:
            found[key] = 1 - cell[key]
            found[f"{key}_ci95"] = [1 - end for end in reversed(cell[f"{key}_ci95"])]
    return found


def power_sentences(results: Numbers, split: str = SPLIT) -> list[str]:
    """Sentences on the smallest differences that the inputs can show."""
    base = base_arm(list(results["arms"]))
    heads = [
        cells for name, cells in results.get("duels", {}).items() if base in name.split("_vs_")
    ]
    kinds = [
        ("head to head", heads),
        (f"from {base} in the scores against the teacher", results.get("differences", {}).values()),
    ]
    return [
        f"With {n} inputs you can see differences above {100 * largest:.0f} points {what}, judged "
        f"by {judge}."
        for what, blocks in kinds
        for judge, (n, largest) in largest_detectable(blocks, split).items()
    ]


def largest_detectable(blocks: Iterable[Numbers], split: str) -> dict[str, tuple[int, float]]:
    """{judge: (n, detectable)} of the arm with the largest detectable difference."""
    found: dict[str, tuple[int, float]] = {}
    for splits in blocks:
        for judge, cell in splits.get(split, {}).items():
            if cell.get("detectable", 0.0) > found.get(judge, (0, 0.0))[1]:
                found[judge] = (cell["n"], cell["detectable"])
    return found


IN_WORDS = {
    "better": "better",
    "worse": "worse",
    "open": "the interval includes one half",
    "longer": "not shown at equal length",
    "unconfirmed": "not confirmed by the scores against the teacher",
}


def claim_rule(a: str, b: str, cells: Numbers, differences: Numbers | None = None) -> str:
    """The claim on two arms: a difference only when every judge shows it in the same direction.

    `cells` are the duels of a and b by judge, `differences` those of a minus b against the teacher.
    """
    each = {j: direction(cell, (differences or {}).get(j)) for j, cell in cells.items()}
    seen = set(each.values())
    if "few" in seen:
        return f"With fewer than {MIN_INPUTS} inputs this shows nothing either way."
    if len(seen) > 1:
        said = "; ".join(f"{judge}: {IN_WORDS[found]}" for judge, found in each.items())
        return f"The judges do not agree ({said}): no difference between {a} and {b} is claimed."
    which = "The interval" if len(cells) == 1 else "Every interval"
    if seen == {"open"}:
        open_ = f"{which} includes one half{detectable_text(cells)}"
        return f"{open_}: a difference between {a} and {b} is not shown."
    if "longer" in seen:
        return f"At equal length a difference between {a} and {b} is not shown."
    if "unconfirmed" in seen:
        return (
            f"Their scores against the teacher do not confirm it, so no difference between {a} and "
            f"{b} is claimed."
        )
    return f"{which} excludes one half: {a} is judged {seen.pop()} than {b}."


def direction(cell: Numbers, difference: Numbers | None = None) -> str:
    """The side of one half on which the interval lies: better, worse or open; few for too few
    inputs, longer for a difference that disappears at equal length, unconfirmed for one that the
    scores against the teacher do not show."""
    if cell["n"] < MIN_INPUTS or (difference and difference["n"] < MIN_INPUTS):
        return "few"
    plain = side(cell["score_ci95"])
    controlled = [side(cell[key]) for key in ["score_at_length_ci95"] if key in cell]
    other = [side(difference["ci95"], 0)] if difference else []
    controlled += [side(difference["at_length_ci95"], 0)] if difference else []
    if plain == "open":
        return plain
    if any(found != plain for found in other):
        return "unconfirmed"
    return "longer" if any(found != plain for found in controlled) else plain


def side(ends: Sequence[float], middle: float = CHANCE) -> str:
    return "better" if ends[0] > middle else "worse" if ends[1] < middle else "open"


def at_length_text(cell: Numbers) -> str:
    if "score_at_length" not in cell:
        return ""
    ends = interval_text(cell["score_at_length_ci95"])
    return f" (at equal length {cell['score_at_length']:.2f} {ends})"


def detectable_text(cells: Numbers) -> str:
    """The smallest difference that the inputs could have shown, in brackets; "" when unknown."""
    known = [cell["detectable"] for cell in cells.values() if "detectable" in cell]
    if not known:
        return ""
    return f" (differences from {100 * max(known):.0f} points on are seen four times in five)"


def teacher_sentences(results: Numbers, split: str) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for arm, splits in results["arms"].items():
        for judge, cell in splits.get(split, {}).items():
            found.setdefault(judge, []).append(f"{arm} {score_text(cell)}")
    for judge, parts in found.items():
        yield f"Against the teacher on {split}, judged by {judge}: {'; '.join(parts)}."


def score_text(cell: Numbers) -> str:
    low, high = cell["score_ci95"]
    return f"score {cell['score']:.2f} [{low:.2f}, {high:.2f}], n = {cell['n']}"


def interval_text(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
