"""Reasons to read the numbers of a run with care, in sentences. Pure.

They are raised by fixed limits, named below or in params.yaml (`alarms`), whatever the claim says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quip.evaluation.metrics import preference_leakage
from quip.reporting.claims import CHANCE, FEW, SPLIT, Numbers, percent, scored, side, span

MANY_FLIPS = 0.5
MANY_UNREAD = 0.05
LONGER = 1.5
SIGNIFICANT = 0.05


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
        *leaks(results),
        *lucky(results, split),
        *collapsed(results, split),
    ]


def one_model(roles: dict[str, Any]) -> Iterator[str]:
    """Preference leakage: a judge that is also critic or teacher (arXiv 2502.01534)."""
    plays = preference_leakage.shared_roles(roles)
    unrelated = [judge for judge, found in plays.items() if not found]
    remedy = (
        f"Read judge {' and '.join(unrelated)} beside it."
        if unrelated
        else "Name an unrelated judge in judge.endpoints."
    )
    for judge, found in plays.items():
        model = roles["judges"][judge]
        if len(found) == len(preference_leakage.ROLES):
            yield (
                f"Teacher, critic and judge are one model ({model}). The students were trained to "
                "please the very model that judges them, and it judges its own texts as teacher: "
                f"gains may be its taste and no more. {remedy}"
            )
        elif found and not unrelated:
            yield (
                f"Judge {judge} and {found[0]} are one model ({model}), and there is no unrelated "
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


def leaks(results: Numbers) -> Iterator[str]:
    """A gain that a judge of the critic's or teacher's own model sees more of than another."""
    for row in results.get("leakage", []):
        for arm, cell in row["gains"].items():
            if cell["ci95"][0] > 0:
                low, high = (100 * end for end in cell["ci95"])
                yield (
                    f"Judge {row['own']}, one model with the {row['role']}, sees "
                    f"{100 * cell['gap']:.0f} points [{low:.0f}, {high:.0f}] more of the gain of "
                    f"{arm} than judge {row['other']} does: so much of it may be its own taste."
                )


def lucky(results: Numbers, split: str) -> Iterator[str]:
    """A duel whose interval excludes one half, and whose corrected sign test does not."""
    for name, splits in results.get("duels", {}).items():
        for judge, cell in splits.get(split, {}).items():
            if side(cell["score_ci95"]) != "open" and cell.get("p_holm", 0.0) >= SIGNIFICANT:
                yield (
                    f"{name.replace('_vs_', ' against ')}, judged by {judge}: the sign test, "
                    f"corrected for the arms compared, gives p = {cell['p_holm']:.2f}. It may be "
                    "the luck of having looked at several arms, or of few inputs that differ."
                )


def collapsed(results: Numbers, split: str) -> Iterator[str]:
    """The alarms of the texts, in words."""
    texts = results.get("texts", {})
    for arm, past in results.get("alarms", {}).items():
        cell = texts.get(arm, {}).get(split, {})
        for name, alarm in past.items():
            yield ALARMS[name].format(
                arm=arm,
                phrase=cell.get("top_4gram", ""),
                share=percent(alarm["value"]),
                most=percent(alarm["limit"]),
                **alarm,
            )


ALARMS = {
    "copy_rate": "{share} of the texts of {arm} are copies of the input (limit {most}).",
    "stock_phrase": '{share} of the texts of {arm} hold the words "{phrase}" (limit {most}): it '
    "has fallen into a stock phrase.",
    "distinct_2": "The texts of {arm} repeat themselves: distinct-2 {value:.2f}, limit "
    "{limit:.2f}.",
    "self_similarity": "The texts of {arm} for different inputs are alike: self-similarity "
    "{value:.2f}, limit {limit:.2f}.",
    "meaning": "The texts of {arm} leave their inputs: mean cosine {value:.2f}, limit {limit:.2f}.",
    "length_drift": "The texts of {arm} drift in length: {value:.2f} times the words, limit "
    "{limit:.2f}.",
}
"""What each alarm means, by its name in wtr.json."""
