"""preferences: the arithmetic of preference, and the stage that turns it into pairs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quip.core.jsonl import read_rows, write_rows
from quip.core.params import load
from quip.core.records import Answer, Critique, Preference, Ranking
from quip.critics.debiasing import (
    Debias,
    calibrated_preference,
    logit,
    order_flips,
    preference,
    sigmoid,
)
from quip.critics.ranking import decide, rank
from quip.evaluation.metrics.tie_rule import outcome
from quip.runtime.errors import DataError, ParamsError
from quip.stages import preferences
from stage_options import options

Project = Callable[..., Path]

LOG_ODDS = Debias(method="log_odds", scale=1.0, per_word=0.0)
PROBABILITY = Debias(method="probability", scale=1.0, per_word=0.0)
LENGTH = Debias(method="log_odds", scale=0.5, per_word=-0.1)
NONE = Debias(method="none", scale=1.0, per_word=0.0)
CONTENT_FREE = Debias(method="content_free", scale=1.0, per_word=0.0, content_free=0.8)
EVERY_WAY = pytest.mark.parametrize(
    "debias", [LOG_ODDS, PROBABILITY, LENGTH], ids=["log_odds", "probability", "length"]
)
ONE_ORDER = pytest.mark.parametrize("debias", [NONE, CONTENT_FREE], ids=["none", "content_free"])
chances = st.floats(0, 1)
OPPOSITE = {"win": "loss", "loss": "win", "tie": "tie"}


def answer(p: float | None, raw: str = "") -> Answer:
    return Answer(p_first=p, source="unread" if p is None else "logprobs", raw=raw)


def critique(
    forward: float | None, backward: float | None, key: str = "t1", a: str = "A", b: str = "B"
) -> Critique:
    return Critique(
        input=key,
        split="train",
        literal="l",
        name_a="0",
        name_b="1",
        a=a,
        b=b,
        judge="j",
        forward=answer(forward, "raw forward"),
        backward=answer(backward, "raw backward"),
    )


def swapped(row: Critique) -> Critique:
    """The same comparison with the roles of the two texts exchanged."""
    return row.model_copy(
        update={"a": row.b, "b": row.a, "forward": row.backward, "backward": row.forward}
    )


# ---- one order only


def test_without_debiasing_one_order_counts_chosen_by_digest() -> None:
    rows = [critique(0.9, 0.4, a=f"text {n}") for n in range(40)]
    values = [calibrated_preference(row, NONE) for row in rows]
    assert {round(value, 3) for value in values if value is not None} == {0.9, 0.6}
    assert values == [calibrated_preference(row, NONE) for row in rows]


def test_the_bias_on_empty_texts_is_subtracted() -> None:
    """A critic that gives any first text 0.8 prefers nothing; `a` at 0.9 has odds 9 against 4."""
    leaning = [critique(0.8, 0.8, a=f"text {n}") for n in range(20)]
    assert all(calibrated_preference(row, CONTENT_FREE) == pytest.approx(0.5) for row in leaning)
    values = {
        calibrated_preference(critique(0.9, 0.9, a=f"text {n}"), CONTENT_FREE) for n in range(20)
    }
    assert sorted(round(value, 3) for value in values if value is not None) == [
        round(4 / 13, 3),
        round(9 / 13, 3),
    ]


@ONE_ORDER
@given(forward=st.floats(0.001, 0.999), backward=st.floats(0.001, 0.999))
def test_swapping_the_texts_turns_the_one_order_too(
    debias: Debias, forward: float, backward: float
) -> None:
    row = critique(forward, backward)
    value, turned = calibrated_preference(row, debias), calibrated_preference(swapped(row), debias)
    assert value is not None
    assert turned is not None
    assert value + turned == pytest.approx(1)


@ONE_ORDER
def test_identical_texts_and_learned_critics_have_no_position(debias: Debias) -> None:
    same = critique(0.5, 0.5, a="B")
    both = {"forward": Answer(p_first=0.5, source="identical")}
    assert (
        calibrated_preference(same.model_copy(update={**both, "backward": both["forward"]}), debias)
        == 0.5
    )
    forward, backward = (Answer(p_first=p, source="learned") for p in (0.7, 0.3))
    learned = critique(0.7, 0.3).model_copy(update={"forward": forward, "backward": backward})
    assert calibrated_preference(learned, debias) == pytest.approx(0.7)


@ONE_ORDER
def test_an_unread_order_is_no_vote_with_content_free_either(debias: Debias) -> None:
    assert calibrated_preference(critique(None, 0.4), debias) is None
    assert calibrated_preference(critique(0.4, None), debias) is None


def test_the_method_content_free_needs_its_number(project: Project) -> None:
    project(debias={"method": "content_free"})
    with pytest.raises(ParamsError, match="needs the number content_free, which `quip critics`"):
        load("debias", Debias)


# ---- the arithmetic


@pytest.mark.parametrize(
    ("forward", "backward", "by_log_odds", "by_probability"),
    [
        (0.9, 0.1, 0.9, 0.9),  # the same text in both orders
        (0.9, 0.9, 0.5, 0.5),  # the same position in both orders
        (0.5, 0.5, 0.5, 0.5),
        (0.8, 0.5, 2 / 3, 0.65),  # odds 4 and 1: sqrt(4) : 1
        (1.0, 0.0, 1 - 1e-6, 1.0),  # certain, yet not infinitely
        (1.0, 0.5, 0.999, 0.75),
    ],
)
def test_worked_values(
    forward: float, backward: float, by_log_odds: float, by_probability: float
) -> None:
    row = critique(forward, backward)
    assert calibrated_preference(row, LOG_ODDS) == pytest.approx(by_log_odds, abs=1e-4)
    assert calibrated_preference(row, PROBABILITY) == pytest.approx(by_probability, abs=1e-4)


@EVERY_WAY
@given(chances, chances)
def test_swapping_the_order_flips_the_preference(
    debias: Debias, forward: float, backward: float
) -> None:
    row = critique(forward, backward, a="one two three", b="one")
    here, there = calibrated_preference(row, debias), calibrated_preference(swapped(row), debias)
    assert here is not None
    assert there is not None
    assert 0 <= here <= 1
    assert here + there == pytest.approx(1, abs=1e-12)


@EVERY_WAY
@settings(max_examples=300)
@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from([0.0, 0.05, 0.1, 0.25]))
def test_swapping_the_order_flips_the_winner_exactly(
    debias: Debias, forward: int, backward: int, margin: float
) -> None:
    """Once 0.55 was a win and 0.45 a tie at a margin of 0.05, by a rounding of floats."""
    row = critique(forward / 20, backward / 20, a="one two three", b="one")
    here, there = calibrated_preference(row, debias), calibrated_preference(swapped(row), debias)
    assert here is not None
    assert there is not None
    assert outcome(there, margin) == OPPOSITE[outcome(here, margin)]


@EVERY_WAY
@given(chances)
def test_a_text_against_itself_gives_one_half(debias: Debias, p: float) -> None:
    """Whatever the position bias: identical texts get the same answer in both orders. Once the
    rounding of (p + 1 - p) / 2 was taken for a preference."""
    value = calibrated_preference(critique(p, p, a="same", b="same"), debias)
    assert value == 0.5
    assert outcome(value, 0.0) == "tie"


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_a_constant_lean_to_one_position_changes_nothing(skill: float, lean: float) -> None:
    fair = critique(sigmoid(skill), sigmoid(-skill))
    leaning = critique(sigmoid(skill + lean), sigmoid(-skill + lean))
    assert calibrated_preference(leaning, LOG_ODDS) == pytest.approx(
        calibrated_preference(fair, LOG_ODDS), abs=1e-9
    )


def test_scale_changes_confidence_and_never_the_winner() -> None:
    """Odds of 9 : 1 at half the scale are 3 : 1."""
    half = Debias(method="log_odds", scale=0.5, per_word=0.0)
    assert calibrated_preference(critique(0.9, 0.1), half) == pytest.approx(0.75)
    assert calibrated_preference(critique(0.1, 0.9), half) == pytest.approx(0.25)


def test_every_extra_word_lowers_the_longer_text() -> None:
    """Odds of 3 : 1 for the text that is two words longer, at log(3) / 2 a word: one half."""
    row = critique(0.75, 0.25, a="one two three", b="one")
    fair = Debias(method="log_odds", scale=1.0, per_word=-math.log(3) / 2)
    assert calibrated_preference(row, fair) == pytest.approx(0.5)
    assert calibrated_preference(row, LOG_ODDS) == pytest.approx(0.75)


@given(chances)
def test_length_alone_never_decides(p: float) -> None:
    row = critique(p, p, a="one two three four five", b="one")
    assert calibrated_preference(row, LENGTH) == 0.5


@given(st.floats(1e-5, 1 - 1e-5))
def test_sigmoid_undoes_logit(p: float) -> None:
    assert sigmoid(logit(p)) == pytest.approx(p)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_sigmoid_never_overflows(x: float) -> None:
    assert 0 <= sigmoid(x) <= 1


def test_logit_stays_finite_at_the_ends() -> None:
    assert math.isfinite(logit(0.0))
    assert logit(0.0) == pytest.approx(-logit(1.0))


@EVERY_WAY
@pytest.mark.parametrize(("forward", "backward"), [(None, 0.1), (0.9, None), (None, None)])
def test_an_unread_answer_is_never_a_vote(
    debias: Debias, forward: float | None, backward: float | None
) -> None:
    assert calibrated_preference(critique(forward, backward), debias) is None
    assert preference(answer(forward), answer(backward), debias.method) is None
    assert order_flips(answer(forward), answer(backward)) is None


@pytest.mark.parametrize(
    ("forward", "backward", "flips"),
    [(0.9, 0.9, True), (0.1, 0.2, True), (0.9, 0.1, False), (0.5, 0.9, False), (0.5, 0.5, False)],
)
def test_a_flip_is_a_named_text_that_changes_with_the_order(
    forward: float, backward: float, flips: bool
) -> None:
    assert order_flips(answer(forward), answer(backward)) is flips


@pytest.mark.parametrize(
    ("value", "margin", "expected"),
    [
        (0.51, 0.0, "win"),
        (0.49, 0.0, "loss"),
        (0.5, 0.0, "tie"),
        (0.55, 0.05, "tie"),
        (0.45, 0.05, "tie"),
        (0.551, 0.05, "win"),
        (0.449, 0.05, "loss"),
        (1.0, 0.5, "tie"),
    ],
)
def test_win_tie_and_loss(value: float, margin: float, expected: str) -> None:
    assert outcome(value, margin) == expected


# ---- deciding


def test_the_preferred_text_is_chosen_and_the_surest_pair_comes_first() -> None:
    rows, _, dropped = decide(
        [critique(0.6, 0.4, "t1"), critique(0.1, 0.9, "t2"), critique(0.9, 0.1, "t0")],
        LOG_ODDS,
        0.5,
    )
    assert [(row.input, row.chosen, row.rejected) for row in rows] == [
        ("t0", "A", "B"),
        ("t2", "B", "A"),
        ("t1", "A", "B"),
    ]
    assert [row.confidence for row in rows] == pytest.approx([0.9, 0.9, 0.6])
    assert not dropped


@EVERY_WAY
@given(chances, chances)
def test_swapping_a_and_b_gives_the_same_training_pair(
    debias: Debias, forward: float, backward: float
) -> None:
    row = critique(forward, backward, a="one two three", b="one")
    here, there = (decide([c], debias, 0.6)[0] for c in (row, swapped(row)))
    assert [(r.chosen, r.rejected) for r in here] == [(r.chosen, r.rejected) for r in there]
    assert [r.confidence for r in here] == pytest.approx([r.confidence for r in there])


@EVERY_WAY
@pytest.mark.parametrize("always", [0.999, 0.7, 0.02])
def test_a_critic_that_always_names_one_position_gives_no_pair(
    debias: Debias, always: float
) -> None:
    critiques = [critique(always, always, f"t{i}") for i in range(5)]
    assert {calibrated_preference(row, debias) for row in critiques} == {0.5}
    rows, _, dropped = decide(critiques, debias, 0.5)
    assert (rows, dict(dropped)) == ([], {"unsure": 5})


def versus(a: str, b: str, p: float | None) -> Critique:
    """One comparison in which the critic, in both orders, puts `p` on text a."""
    return critique(p, None if p is None else 1 - p, a=a, b=b)


def test_three_texts_are_ranked_by_their_mean_preference() -> None:
    """A: (0.9 + 0.6) / 2, B: (0.1 + 0.8) / 2, C: (0.4 + 0.2) / 2."""
    rows = [versus("A", "B", 0.9), versus("C", "A", 0.4), versus("B", "C", 0.8)]
    found = rank(rows, LOG_ODDS)
    assert found is not None
    assert found.texts == ["A", "B", "C"]
    assert found.scores == pytest.approx([0.75, 0.45, 0.3])
    assert found.ranks == [0, 1, 2]


def test_the_pair_is_the_best_against_the_worst_as_these_two_were_compared() -> None:
    rows = [versus("A", "B", 0.9), versus("C", "A", 0.4), versus("B", "C", 0.8)]
    (pair,), (ranking,), dropped = decide(rows, LOG_ODDS, 0.55)
    assert (pair.chosen, pair.rejected) == ("A", "C")
    assert pair.confidence == pytest.approx(0.6)
    assert ranking.texts == ["A", "B", "C"]
    assert not dropped
    assert decide(rows, LOG_ODDS, 0.65)[2] == {"unsure": 1}


def test_texts_of_equal_score_share_a_rank() -> None:
    """A beats both others, which are even."""
    found = rank([versus("B", "A", 0.2), versus("B", "C", 0.5), versus("C", "A", 0.2)], LOG_ODDS)
    assert found is not None
    assert (found.texts, found.ranks) == (["A", "B", "C"], [0, 1, 1])


def test_a_circle_of_preferences_is_no_ranking() -> None:
    rows = [versus("A", "B", 0.8), versus("B", "C", 0.8), versus("C", "A", 0.8)]
    found = rank(rows, LOG_ODDS)
    assert found is not None
    assert found.ranks == [0, 0, 0]
    assert decide(rows, LOG_ODDS, 0.5)[2] == {"unsure": 1}


def test_an_unread_comparison_between_others_costs_the_input_nothing() -> None:
    rows = [versus("A", "B", None), versus("A", "C", 0.9), versus("B", "C", 0.7)]
    (pair,), (ranking,), dropped = decide(rows, LOG_ODDS, 0.5)
    assert (ranking.texts, dropped) == (["A", "B", "C"], {})
    assert pair.confidence == pytest.approx(0.9)


def test_an_unsure_and_an_unread_critique_are_counted_apart() -> None:
    rows, _, dropped = decide(
        [critique(0.55, 0.45, "t1"), critique(None, 0.9, "t2"), critique(0.9, 0.1, "t3")],
        LOG_ODDS,
        0.6,
    )
    assert len(rows) == 1
    assert dropped == {"unsure": 1, "unparsed": 1}


# ---- the stage


def run(rows: list[Critique]) -> None:
    write_rows("critique.jsonl", rows)
    preferences.main(
        options(critique="critique.jsonl", out="out.jsonl", rankings="r.jsonl", metrics="m.json")
    )


def test_the_stage_writes_pairs_and_what_it_left_out(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project(debias=LOG_ODDS.model_dump(), preferences={"min_confidence": 0.6, "max_unparsed": 0.5})
    run(
        [
            critique(0.9, 0.2, "t1", a="one two three", b="one"),
            critique(0.9, 0.9, "t2"),
            critique(None, 0.9, "t3"),
            critique(0.2, 0.9, "t4", a="one", b="one two"),
        ]
    )
    rankings = read_rows("r.jsonl", Ranking)
    assert [row.texts for row in rankings] == [["one two three", "one"], ["one two", "one"]]
    rows = read_rows("out.jsonl", Preference)
    assert [(row.input, row.chosen) for row in rows] == [("t1", "one two three"), ("t4", "one two")]
    assert json.loads(Path("m.json").read_text()) == {
        "critiques": 4,
        "kept": 2,
        "dropped": {"unsure": 1, "unparsed": 1},
        "flip_rate": 0.25,
        "confidence": 0.8571,
        "chosen_words": 2.5,
        "rejected_words": 1.0,
    }
    assert "critiques 4, kept 2, unsure 1, unparsed 1" in capsys.readouterr().out


def test_too_many_unread_critiques_stop_the_stage_with_the_first(project: Project) -> None:
    project(preferences={"max_unparsed": 0.05})
    with pytest.raises(DataError) as caught:
        run([critique(0.9, 0.1, f"t{i}") for i in range(8)] + [critique(0.1, None, "t8")])
    assert str(caught.value) == (
        "1 of 9 critiques could not be read (limit 5%). First: input t8: 'raw forward'. "
        "Look at prompts/critic.txt."
    )
    assert not Path("out.jsonl").exists()


def test_no_pair_at_all_stops_the_stage_with_the_remedy(project: Project) -> None:
    project()
    with pytest.raises(DataError, match=r"no pair is left of 2 .*'unsure': 2.*min_confidence"):
        run([critique(0.99, 0.99, "t1"), critique(0.98, 0.98, "t2")])
