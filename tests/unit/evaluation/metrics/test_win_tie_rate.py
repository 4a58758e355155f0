"""Rates and intervals: values worked by hand, the limits, and the symmetry of the comparison."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quip.evaluation.metrics.win_tie_rate import JudgedInput, summarise
from quip.runtime.errors import DataError


def rows(*preferences: float | None, ratio: float = 1.0) -> list[JudgedInput]:
    return [
        JudgedInput(f"i{number}", value, None if value is None else False, ratio)
        for number, value in enumerate(preferences)
    ]


def test_hand_worked_rates():
    found = summarise(rows(0.9, 0.8, 0.52, 0.1, None), tie_margin=0.05)
    assert (found["win"], found["tie"], found["loss"]) == (0.5, 0.25, 0.25)
    assert found["wtr"] == 0.75
    assert found["score"] == 0.625
    assert found["n"] == 4
    assert found["unparsed"] == 0.2


def test_hand_worked_flip_rate_and_length_ratio_count_only_read_rows():
    found = summarise(
        [
            JudgedInput("a", 0.9, True, 2.0),
            JudgedInput("b", 0.1, False, 1.0),
            JudgedInput("c", None, None, 50.0),
        ],
        tie_margin=0.05,
    )
    assert found["flip_rate"] == 0.5
    assert found["length_ratio"] == 1.5


def test_all_tie_scores_one_half_though_wtr_is_one():
    found = summarise(rows(0.5, 0.5, 0.5), tie_margin=0.0)
    assert (found["wtr"], found["score"]) == (1.0, 0.5)
    assert found["ci95"] == [1.0, 1.0]
    assert found["score_ci95"] == [0.5, 0.5]


def test_all_loss_is_zero():
    found = summarise(rows(0.1, 0.2), tie_margin=0.05)
    assert (found["wtr"], found["score"], found["loss"]) == (0.0, 0.0, 1.0)
    assert found["score_ci95"] == [0.0, 0.0]


def test_one_row_gives_numbers():
    found = summarise(rows(0.9), tie_margin=0.05)
    assert (found["n"], found["score"], found["score_ci95"]) == (1, 1.0, [1.0, 1.0])


def test_empty_is_refused():
    with pytest.raises(DataError, match="no comparison to summarise"):
        summarise([], tie_margin=0.05)


def test_all_unread_is_refused_instead_of_dividing_by_zero():
    with pytest.raises(DataError, match="none of 2 verdicts could be read"):
        summarise(rows(None, None), tie_margin=0.05)


def test_an_input_judged_twice_is_refused():
    twice = [JudgedInput("x", 0.9, False, 1.0)] * 2
    with pytest.raises(DataError, match="input 'x' is judged 2 times"):
        summarise(twice, tie_margin=0.05)


def test_interval_agrees_with_the_normal_approximation():
    """Score of 60 wins, 40 losses: standard error sqrt(0.6 x 0.4 / 100) = 0.049."""
    found = summarise(rows(*[0.9] * 60, *[0.1] * 40), tie_margin=0.05)
    low, high = found["score_ci95"]
    assert low == pytest.approx(0.6 - 1.96 * 0.049, abs=0.011)
    assert high == pytest.approx(0.6 + 1.96 * 0.049, abs=0.011)


def test_same_seed_same_interval_whatever_the_order_of_inputs():
    some = rows(*[0.9] * 7, *[0.5] * 3, *[0.2] * 9)
    assert summarise(some, 0.05, seed=3) == summarise(some[::-1], 0.05, seed=3)


preferences = st.lists(st.integers(0, 64).map(lambda k: k / 64), min_size=1, max_size=60)


@given(preferences)
def test_swapping_a_and_b_swaps_wins_with_losses(values):
    one = summarise(rows(*values), tie_margin=0.05, resamples=200)
    other = summarise(rows(*(1 - value for value in values)), tie_margin=0.05, resamples=200)
    assert (one["win"], one["tie"], one["loss"]) == (other["loss"], other["tie"], other["win"])
    assert one["score"] == pytest.approx(1 - other["score"])


@given(preferences)
def test_intervals_hold_the_point_estimates_and_nothing_is_nan(values):
    found = summarise(rows(*values), tie_margin=0.05, resamples=2000)
    assert found["ci95"][0] <= found["wtr"] <= found["ci95"][1]
    assert found["score_ci95"][0] <= found["score"] <= found["score_ci95"][1]
    assert found["win"] + found["tie"] + found["loss"] == pytest.approx(1)
    numbers = [value for value in found.values() if isinstance(value, float)]
    assert all(math.isfinite(value) and value >= 0 for value in numbers)
