"""Caveats: reasons to read the numbers of a run with care, in sentences. Pure.

Fixed limits, named below or in params.yaml (`alarms`), decide which ones apply, whatever the claim
says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quip.evaluation.metrics import preference_leakage
from quip.reporting.claims import (
    CHANCE,
    MIN_INPUTS,
    SPLIT,
    Numbers,
    interval_text,
    percent,
    score_text,
    side,
)

MANY_FLIPS = 0.5
MANY_UNREAD = 0.05
LONG_TEXTS = 1.5
SIGNIFICANT = 0.05


def list_caveats(
    results: Numbers, critic: Numbers | None, roles: dict[str, Any], split: str = SPLIT
) -> list[str]:
    """Every caveat that applies, the most serious first.

    `results` is the content of wtr.json; `critic` is the content of critic.json, None when the
    critic was not audited. `roles` holds the models: {"teacher": model, "critic":
    model, "judges": {endpoint: model}}.
    """
    return [
        *shared_model_caveats(roles),
        *critic_caveats(critic),
        *control_caveats(results, split),
        *verdict_caveats(results, split),
        *judge_agreement_caveats(results),
        *leakage_caveats(results),
        *sign_test_caveats(results, split),
        *alarm_caveats(results, split),
    ]


def shared_model_caveats(roles: dict[str, Any]) -> Iterator[str]:
    """Preference leakage: a judge whose model is also critic or teacher (arXiv 2502.01534)."""
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
                "please the model that judges them, and it judges its own texts as teacher: gains "
                f"may only reflect its own preferences. {remedy}"
            )
        elif found and not unrelated:
            yield (
                f"Judge {judge} and {found[0]} are one model ({model}), and there is no unrelated "
                "judge. Name one in judge.endpoints."
            )


def critic_caveats(critic: Numbers | None) -> Iterator[str]:
    """The audit of the critic and of each other judge."""
    if critic is None:
        yield "The critic was not audited: its agreement with the gold pairs is unknown."
        return
    yield from chance_caveats("the critic", critic)
    if critic["ci95"][0] <= CHANCE:
        yield (
            "The students learned from this critic all the same, because critique.unproven names "
            "it: what they gained is its preferences, and nobody else is shown to share these."
        )
    for judge, found in critic.get("judges", {}).items():
        yield from chance_caveats(f"judge {judge}", found)


def chance_caveats(judge: str, found: Numbers) -> Iterator[str]:
    """A judge whose interval of agreement with the gold pairs reaches one half (chance)."""
    if found["ci95"][0] <= CHANCE:
        yield (
            f"{judge[0].upper()}{judge[1:]} is not shown to be better than chance: its agreement "
            f"with the gold pairs is {found['agreement']:.2f} {interval_text(found['ci95'])}. Its "
            "verdicts support no claim."
        )
    kinds = [
        f"{kind} {cell['agreement']:.2f} {interval_text(cell['ci95'])}"
        for kind, cell in found.get("by_kind", {}).items()
        if "ci95" in cell and cell["ci95"][0] <= CHANCE
    ]
    if kinds:
        yield f"On these kinds of pairs the interval of {judge} reaches chance: {'; '.join(kinds)}."


def control_caveats(results: Numbers, split: str) -> Iterator[str]:
    """A judge that scores the teacher's two texts differently, or prefers a copy of the input."""
    controls = results.get("controls", {})
    for judge, cell in controls.get("teacher", {}).get(split, {}).items():
        low, high = cell["score_ci95"]
        if cell["n"] >= MIN_INPUTS and not low <= CHANCE <= high:
            yield (
                f"Judge {judge} does not hold the teacher's first and second paraphrase equal "
                f"({score_text(cell)}): a shift of this size against the teacher means nothing."
            )
    for judge, cell in controls.get("copy", {}).get(split, {}).items():
        beaten = [
            arm
            for arm, splits in results["arms"].items()
            if splits.get(split, {}).get(judge, {"score": 1.0})["score"] <= cell["score"]
        ]
        if beaten:
            yield (
                f"Judge {judge} gives an unchanged copy of the input ({score_text(cell)}) no "
                f"lower a score than {' and '.join(beaten)}."
            )


def verdict_caveats(results: Numbers, split: str) -> Iterator[str]:
    """Judges that follow position or cannot be read, and arms with long texts."""
    for judge, arms in cells_above(results, split, "flip_rate", MANY_FLIPS).items():
        yield (
            f"Judge {judge} names another text when the order changes on more than "
            f"{percent(MANY_FLIPS)} of the inputs ({share_list(arms)}): its single answers are "
            "mostly position, and little remains after debiasing."
        )
    for judge, arms in cells_above(results, split, "unparsed", MANY_UNREAD).items():
        yield (
            f"Many verdicts of judge {judge} could not be read ({share_list(arms)}); they are not "
            "counted."
        )
    for judge, arms in cells_above(results, split, "length_ratio", LONG_TEXTS).items():
        longer = ", ".join(f"{arm} {value:.1f}" for arm, value in arms.items())
        yield (
            f"Some arms write many more words than the teacher (times as many, judge {judge}: "
            f"{longer}): their score may be length."
        )


def judge_agreement_caveats(results: Numbers) -> Iterator[str]:
    """Pairs of judges whose agreement on the same texts reaches chance."""
    for pair, found in results.get("judges", {}).items():
        if found["ci95"][0] <= 0:
            yield (
                f"Judges {pair} agree no more than by chance (Cohen's kappa {found['kappa']:.2f} "
                f"{interval_text(found['ci95'])} on {found['n']} comparisons): at most one of them "
                "measures what is wanted. Choose by their agreement with the gold pairs."
            )


def cells_above(
    results: Numbers, split: str, key: str, limit: float
) -> dict[str, dict[str, float]]:
    """{judge: {arm: value}} of the cells of one split whose `key` is above `limit`."""
    found: dict[str, dict[str, float]] = {}
    for arm, splits in results["arms"].items():
        for judge, cell in splits.get(split, {}).items():
            if cell[key] > limit:
                found.setdefault(judge, {})[arm] = cell[key]
    return found


def share_list(arms: dict[str, float]) -> str:
    return ", ".join(f"{arm} {percent(value)}" for arm, value in arms.items())


def leakage_caveats(results: Numbers) -> Iterator[str]:
    """A gain that a judge of the critic's or teacher's model rates higher than another judge."""
    for row in results.get("leakage", []):
        for arm, cell in row["gains"].items():
            if cell["ci95"][0] > 0:
                low, high = (100 * end for end in cell["ci95"])
                yield (
                    f"Judge {row['own']}, one model with the {row['role']}, sees "
                    f"{100 * cell['gap']:.0f} points [{low:.0f}, {high:.0f}] more of the gain of "
                    f"{arm} than judge {row['other']} does: that part may be its own preference."
                )


def sign_test_caveats(results: Numbers, split: str) -> Iterator[str]:
    """A duel whose interval excludes one half, but whose corrected sign test is not significant."""
    for name, splits in results.get("duels", {}).items():
        for judge, cell in splits.get(split, {}).items():
            if side(cell["score_ci95"]) != "open" and cell.get("p_holm", 0.0) >= SIGNIFICANT:
                yield (
                    f"{name.replace('_vs_', ' against ')}, judged by {judge}: the sign test, "
                    f"corrected for the arms compared, gives p = {cell['p_holm']:.2f}. It may "
                    "be chance: several arms were compared, or few inputs differ."
                )


def alarm_caveats(results: Numbers, split: str) -> Iterator[str]:
    """The raised alarms of the texts, in words."""
    texts = results.get("texts", {})
    for arm, raised in results.get("alarms", {}).items():
        cell = texts.get(arm, {}).get(split, {})
        for name, alarm in raised.items():
            yield ALARMS[name].format(
                arm=arm,
                phrase=cell.get("top_4gram", ""),
                share=percent(alarm["value"]),
                most=percent(alarm["limit"]),
                **alarm,
            )


ALARMS = {
    "copy_rate": "{share} of the texts of {arm} are copies of the input (limit {most}).",
    "stock_phrase": '{share} of the texts of {arm} contain the words "{phrase}" (limit {most}): it '
    "repeats a stock phrase.",
    "distinct_2": "The texts of {arm} repeat themselves: distinct-2 {value:.2f}, limit "
    "{limit:.2f}.",
    "self_similarity": "The texts of {arm} for different inputs are alike: self-similarity "
    "{value:.2f}, limit {limit:.2f}.",
    "meaning": "The texts of {arm} lose the meaning of their inputs: mean cosine {value:.2f}, "
    "limit {limit:.2f}.",
    "length_drift": "The texts of {arm} drift in length: {value:.2f} times the words, limit "
    "{limit:.2f}.",
}
"""{name of the alarm in wtr.json: its sentence}."""
