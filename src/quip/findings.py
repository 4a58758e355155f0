"""What the numbers say, in sentences: the claim of a run and the doubts about it. Pure.

The rule of the claim: a difference is claimed only when the 95 % interval of the score excludes
one half, as it is and at equal length (`quip.length`), by every judge, and on no fewer than `FEW`
inputs; otherwise the sentence says plainly that it is not shown. The doubts are raised by fixed
limits, named below, whatever the claim says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

BASE = "sft"
SPLIT = "test"
FEW = 20
MANY_FLIPS = 0.5
MANY_UNREAD = 0.05
STOCK_PHRASE = 0.2
MANY_COPIES = 0.2
LONGER = 1.5
CHANCE = 0.5

Numbers = dict[str, Any]


def claim(results: Numbers, split: str = SPLIT) -> str:
    """One paragraph: each arm head to head with `sft`, then every arm against the teacher.

    `results` is the content of wtr.json. Without an arm `sft` the first arm is the one to beat.
    """
    arms = list(results["arms"])
    base = BASE if BASE in arms else arms[0]
    duels = [sorted((arm, base), key=arms.index) for arm in arms if arm != base]
    heads = [duel(results, later, earlier, split) for earlier, later in duels]
    return " ".join([*heads, *against_teacher(results, split)])


def duel(results: Numbers, a: str, b: str, split: str) -> str:
    """The head to head of two arms by all judges, and what they together allow to say."""
    cells = results.get("duels", {}).get(f"{a}_vs_{b}", {}).get(split, {})
    if not cells:
        return f"{a} and {b} were not compared head to head on {split}."
    scores = "; ".join(
        f"{scored(cell)}{at_length(cell)}, judged by {judge}" for judge, cell in cells.items()
    )
    return f"{a} against {b}, head to head on {split}: {scores}. {ruling(a, b, cells)}"


def ruling(a: str, b: str, cells: Numbers) -> str:
    """A difference is claimed only when every judge sees it, in the same direction."""
    seen = {direction(cell) for cell in cells.values()}
    if "few" in seen:
        return f"With fewer than {FEW} inputs this shows nothing either way."
    if len(seen) > 1:
        return f"The judges do not agree, so no difference between {a} and {b} is claimed."
    which = "The interval" if len(cells) == 1 else "Every interval"
    if seen == {"open"}:
        open_ = f"{which} includes one half{seen_from(cells)}"
        return f"{open_}: a difference between {a} and {b} is not shown."
    if "longer" in seen:
        return f"At equal length a difference between {a} and {b} is not shown."
    return f"{which} excludes one half: {a} is judged {seen.pop()} than {b}."


def direction(cell: Numbers) -> str:
    """Which side of one half the interval lies on: better, worse or open; few for too few inputs,
    longer for a difference that is gone at equal length."""
    if cell["n"] < FEW:
        return "few"
    plain = side(cell["score_ci95"])
    known = "score_at_length_ci95" in cell
    controlled = side(cell["score_at_length_ci95"]) if known else plain
    return plain if controlled == plain or plain == "open" else "longer"


def side(ends: Sequence[float]) -> str:
    return "better" if ends[0] > CHANCE else "worse" if ends[1] < CHANCE else "open"


def at_length(cell: Numbers) -> str:
    if "score_at_length" not in cell:
        return ""
    return f" (at equal length {cell['score_at_length']:.2f} {span(cell['score_at_length_ci95'])})"


def seen_from(cells: Numbers) -> str:
    """How large a difference the inputs could have shown."""
    known = [cell["detectable"] for cell in cells.values() if "detectable" in cell]
    if not known:
        return ""
    return f" (differences from {100 * max(known):.0f} points on are seen four times in five)"


def against_teacher(results: Numbers, split: str) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for arm, splits in results["arms"].items():
        for judge, cell in splits.get(split, {}).items():
            found.setdefault(judge, []).append(f"{arm} {scored(cell)}")
    for judge, parts in found.items():
        yield f"Against the teacher on {split}, judged by {judge}: {'; '.join(parts)}."


def scored(cell: Numbers) -> str:
    low, high = cell["score_ci95"]
    return f"score {cell['score']:.2f} [{low:.2f}, {high:.2f}], n = {cell['n']}"


def doubts(
    results: Numbers, critic: Numbers | None, roles: dict[str, Any], split: str = SPLIT
) -> list[str]:
    """Every reason to read the numbers with care, the gravest first.

    `critic` is the content of critic.json, None when the critic was not audited. `roles` holds
    the models: {"teacher": model, "critic": model, "judges": {endpoint: model}}.
    """
    return [
        *one_model(roles),
        *weak_critic(critic),
        *weak_controls(results, split),
        *weak_verdicts(results, split),
        *judges_apart(results),
        *weak_texts(results, split),
    ]


def one_model(roles: dict[str, Any]) -> Iterator[str]:
    """Preference leakage: a judge that is also critic or teacher (arXiv 2502.01534)."""
    teacher, critic, judges = roles.get("teacher"), roles.get("critic"), roles.get("judges") or {}
    if any(model not in (teacher, critic) for model in judges.values()):
        return
    for judge, model in judges.items():
        if model == teacher == critic:
            yield (
                f"Teacher, critic and judge are one model ({model}). The students were trained to "
                "please the very model that judges them, and it judges its own texts as teacher: "
                "gains may be its taste and no more. Name an unrelated judge in judge.endpoints."
            )
        else:
            role = "critic" if model == critic else "teacher"
            yield (
                f"Judge {judge} and {role} are one model ({model}), and there is no unrelated "
                "judge. Name one in judge.endpoints."
            )


def weak_critic(critic: Numbers | None) -> Iterator[str]:
    """The doubts about the critic and about each judge that the audit asked beside it."""
    if critic is None:
        yield "The critic was not audited: nothing is known of its agreement with the gold pairs."
        return
    yield from weak_answers("the critic", critic)
    if critic["ci95"][0] <= CHANCE:
        yield (
            "The students learned from this critic all the same, because critique.unproven names "
            "it: what they gained is its taste, and that is not shown to be anybody else's."
        )
    for judge, found in critic.get("judges", {}).items():
        yield from weak_answers(f"judge {judge}", found)


def weak_answers(who: str, found: Numbers) -> Iterator[str]:
    """Agreement with the gold pairs whose interval reaches one half is no better than a coin."""
    if found["ci95"][0] <= CHANCE:
        yield (
            f"{who[0].upper()}{who[1:]} is not shown to be better than chance: its agreement with "
            f"the gold pairs is {found['agreement']:.2f} {span(found['ci95'])}. No verdict of it "
            "can carry a claim."
        )
    kinds = [
        f"{kind} {cell['agreement']:.2f} {span(cell['ci95'])}"
        for kind, cell in found.get("by_kind", {}).items()
        if "ci95" in cell and cell["ci95"][0] <= CHANCE
    ]
    if kinds:
        yield f"On these kinds of pairs the interval of {who} reaches chance: {'; '.join(kinds)}."


def weak_controls(results: Numbers, split: str) -> Iterator[str]:
    """A judge that prefers one of the teacher's own texts, or a plain copy of the input."""
    controls = results.get("controls", {})
    for judge, cell in controls.get("teacher", {}).get(split, {}).items():
        low, high = cell["score_ci95"]
        if cell["n"] >= FEW and not low <= CHANCE <= high:
            yield (
                f"Judge {judge} does not hold the teacher's first and second paraphrase equal "
                f"({scored(cell)}): a shift of this size against the teacher means nothing."
            )
    for judge, cell in controls.get("copy", {}).get(split, {}).items():
        beaten = [
            arm
            for arm, splits in results["arms"].items()
            if splits.get(split, {}).get(judge, {"score": 1.0})["score"] <= cell["score"]
        ]
        if beaten:
            yield (
                f"Judge {judge} gives an unchanged copy of the input ({scored(cell)}) no lower a "
                f"score than {' and '.join(beaten)}."
            )


def weak_verdicts(results: Numbers, split: str) -> Iterator[str]:
    """Judges that follow position, that cannot be read, and arms that write at length."""
    for judge, arms in above(results, split, "flip_rate", MANY_FLIPS).items():
        yield (
            f"Judge {judge} names another text when the order changes on more than "
            f"{percent(MANY_FLIPS)} of the inputs ({shares(arms)}): its single answers are mostly "
            "position, and what debiasing leaves is weak."
        )
    for judge, arms in above(results, split, "unparsed", MANY_UNREAD).items():
        yield (
            f"Many verdicts of judge {judge} could not be read ({shares(arms)}); they do not vote."
        )
    for judge, arms in above(results, split, "length_ratio", LONGER).items():
        longer = ", ".join(f"{arm} {value:.1f}" for arm, value in arms.items())
        yield (
            f"Some arms write many more words than the teacher (times as many, judge {judge}: "
            f"{longer}): their score may be length."
        )


def judges_apart(results: Numbers) -> Iterator[str]:
    """Judges whose verdicts on the same texts agree no better than by chance."""
    for pair, found in results.get("judges", {}).items():
        if found["ci95"][0] <= 0:
            yield (
                f"Judges {pair} agree no more than by chance (Cohen's kappa {found['kappa']:.2f} "
                f"{span(found['ci95'])} on {found['n']} comparisons): at most one of them measures "
                "what is wanted. Their agreement with the gold pairs says which to read."
            )


def above(results: Numbers, split: str, key: str, limit: float) -> dict[str, dict[str, float]]:
    """{judge: {arm: value}} of the cells of one split whose `key` is above `limit`."""
    found: dict[str, dict[str, float]] = {}
    for arm, splits in results["arms"].items():
        for judge, cell in splits.get(split, {}).items():
            if cell[key] > limit:
                found.setdefault(judge, {})[arm] = cell[key]
    return found


def shares(arms: dict[str, float]) -> str:
    return ", ".join(f"{arm} {percent(value)}" for arm, value in arms.items())


def weak_texts(results: Numbers, split: str) -> Iterator[str]:
    """Stock phrases and copies; a phrase that the teacher uses as often is no fault of the arm."""
    texts = results.get("texts", {})
    teacher = texts.get("teacher", {}).get(split, {}).get("top_4gram_share", 0.0)
    for name in results["arms"]:
        cell = texts.get(name, {}).get(split)
        if cell and cell["top_4gram_share"] > max(STOCK_PHRASE, teacher):
            yield (
                f"{percent(cell['top_4gram_share'])} of the texts of {name} hold the words "
                f'"{cell["top_4gram"]}" (the commonest of the teacher: {percent(teacher)}): it has '
                "fallen into a stock phrase."
            )
        if cell and cell["copy_rate"] > MANY_COPIES:
            yield f"{percent(cell['copy_rate'])} of the texts of {name} are copies of the input."


def span(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.2f}, {ends[1]:.2f}]"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
