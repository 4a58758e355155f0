"""Paired differences: values worked by hand, the limits, and the gain from pairing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quip.evaluation.metrics import paired_differences
from quip.evaluation.metrics.win_tie_rate import JudgedInput
from quip.runtime.errors import DataError

WIN, TIE, LOSS = 0.9, 0.5, 0.1


def rows(*preferences: float | None, ratio: float = 1.0) -> list[JudgedInput]:
    return [JudgedInput(f"i{n}", value, False, ratio) for n, value in enumerate(preferences)]


def paired(one: list[JudgedInput], other: list[JudgedInput], resamples: int = 500) -> dict:
    return paired_differences.paired_difference(one, other, 0.05, resamples, 1)


def leaves(found: dict) -> list[float]:
    return [x for value in found.values() for x in (value if isinstance(value, list) else [value])]


def test_hand_worked_difference() -> None:
    found = paired(rows(WIN, WIN, TIE, LOSS), rows(LOSS, TIE, TIE, TIE))
    assert found["difference"] == pytest.approx((1 + 0.5 + 0 - 0.5) / 4)
    assert (found["more"], found["equal"], found["less"], found["n"]) == (2, 1, 1, 4)
    assert found["p"] == 1.0  # two of three tosses


def test_only_inputs_that_were_read_for_both_count_whatever_their_order() -> None:
    found = paired(rows(WIN, None, WIN, TIE)[::-1], rows(LOSS, LOSS, None, TIE))
    assert (found["n"], found["difference"]) == (2, 0.5)


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    """Half the inputs are hard for both; on every one of the others the arm is half a point up."""
    one, other = rows(*[WIN] * 20, *[LOSS] * 20), rows(*[TIE] * 20, *[LOSS] * 20)
    low, high = paired(one, other, 5000)["ci95"]
    assert 0 < low < 0.25 < high < 0.36


@pytest.mark.parametrize(
    ("one", "other", "difference"),
    [
        (rows(TIE, TIE, TIE), rows(TIE, TIE, TIE), 0.0),
        (rows(LOSS, LOSS), rows(LOSS, LOSS), 0.0),
        (rows(WIN, WIN), rows(LOSS, LOSS), 1.0),
        (rows(WIN), rows(TIE), 0.5),
        (rows(LOSS, ratio=0.0), rows(LOSS, ratio=9.0), 0.0),
    ],
)
def test_all_tie_all_loss_and_one_row_give_numbers(one, other, difference) -> None:
    found = paired(one, other)
    assert found["difference"] == difference
    assert found["ci95"] == [difference, difference]
    assert all(math.isfinite(value) for value in leaves(found))
    assert 0 < found["detectable"] <= 1


@pytest.mark.parametrize(("one", "other"), [([], []), (rows(WIN), []), (rows(None), rows(WIN))])
def test_nothing_in_common_is_refused(one, other) -> None:
    with pytest.raises(DataError, match="no input has a readable verdict for both arms"):
        paired(one, other)


def test_more_inputs_make_smaller_differences_visible() -> None:
    few = paired(rows(*[WIN, LOSS, TIE, TIE] * 4), rows(*[TIE] * 16))
    many = paired(rows(*[WIN, LOSS, TIE, TIE] * 16), rows(*[TIE] * 64))
    assert many["detectable"] == pytest.approx(few["detectable"] / 2)
    assert many["detectable"] == pytest.approx(2.8 * math.sqrt(0.125 / 64))


def test_a_gain_that_is_only_length_is_gone_at_equal_length() -> None:
    """The judge likes whatever is longer, and the arm writes longer texts than the base."""
    chance = np.random.default_rng(3)
    one, other = (
        [
            JudgedInput(f"i{n}", WIN if chance.random() < p else LOSS, False, float(np.exp(log)))
            for n, log in enumerate(logs)
            for p in [1 / (1 + np.exp(-2 * log))]
        ]
        for logs in (chance.normal(0.5, 0.5, 1000), chance.normal(0.0, 0.5, 1000))
    )
    found = paired(one, other)
    assert found["ci95"][0] > 0.1
    assert found["at_length_ci95"][0] < 0 < found["at_length_ci95"][1]
    assert abs(found["at_length"]) < 0.08


def test_the_sign_test_counts_tosses_of_a_coin() -> None:
    assert paired_differences.sign_test(6, 0) == pytest.approx(2 / 64)
    assert paired_differences.sign_test(0, 0) == 1.0
    assert paired_differences.sign_test(5, 5) == 1.0


def test_holm_steps_down() -> None:
    found = paired_differences.holm_correction({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert paired_differences.holm_correction({}) == {}
    assert paired_differences.holm_correction({"a": 0.2}) == {"a": 0.2}


def test_without_sft_the_first_arm_is_the_one_to_beat() -> None:
    assert paired_differences.base_arm(["dpo", "sft"]) == "sft"
    assert paired_differences.base_arm(["ft", "dpo"]) == "ft"


verdicts = st.lists(st.tuples(*[st.sampled_from([WIN, TIE, LOSS])] * 2), min_size=1, max_size=40)


@given(verdicts)
def test_swapping_the_arms_turns_every_sign(pairs) -> None:
    one, other = (rows(*side) for side in zip(*pairs, strict=True))
    found, turned = paired(one, other), paired(other, one)
    assert found["difference"] == pytest.approx(-turned["difference"])
    assert found["at_length"] == pytest.approx(-turned["at_length"], abs=1e-9)
    assert (found["more"], found["p"]) == (turned["less"], turned["p"])
    assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    assert all(math.isfinite(value) for value in leaves(found))
