"""Collapse alarms: each limit from both sides, length by round, and the limits of the inputs."""

from __future__ import annotations

import math

import pytest

from quip.evaluation.alarms import Limits, drift, tripped

LIMITS = Limits(
    copy_rate=0.2,
    stock_phrase=0.2,
    distinct_2=0.75,
    self_similarity=0.1,
    meaning=0.5,
    length_drift=(0.75, 1.33),
)
TEACHER = {"top_4gram_share": 0.1, "distinct_2": 0.8, "self_similarity": 0.14}
CALM = {
    **{"copy_rate": 0.1, "top_4gram_share": 0.1, "distinct_2": 0.7},
    **{"self_similarity": 0.15, "meaning": 0.8},
}


@pytest.mark.parametrize(
    ("change", "name", "limit"),
    [
        ({"copy_rate": 0.21}, "copy_rate", 0.2),
        ({"top_4gram_share": 0.21}, "stock_phrase", 0.2),
        ({"distinct_2": 0.59}, "distinct_2", 0.6),
        ({"self_similarity": 0.25}, "self_similarity", 0.24),
        ({"meaning": 0.49}, "meaning", 0.5),
    ],
)
def test_each_measure_past_its_limit_is_marked_with_value_and_limit(change, name, limit):
    [value] = change.values()
    found = tripped({**CALM, **change}, TEACHER, [], LIMITS)
    assert found == {name: {"value": value, "limit": pytest.approx(limit)}}


def test_nothing_is_marked_at_the_limits():
    at = {"copy_rate": 0.2, "top_4gram_share": 0.2, "distinct_2": 0.75, "meaning": 0.5}
    at |= {"self_similarity": 0.24}
    rounds = [{"ratio": 0.75}, {"ratio": 1.33}]
    assert tripped(at, {**TEACHER, "distinct_2": 1.0}, rounds, LIMITS) == {}


def test_a_phrase_that_the_teacher_uses_as_often_is_no_fault_of_the_arm():
    teacher = {**TEACHER, "top_4gram_share": 0.4}
    assert tripped({**CALM, "top_4gram_share": 0.4}, teacher, [], LIMITS) == {}


@pytest.mark.parametrize(("ratio", "limit"), [(0.7, 0.75), (1.4, 1.33)])
def test_length_may_drift_either_way_in_any_round(ratio, limit):
    found = tripped(CALM, TEACHER, [{"ratio": ratio}, {"ratio": 1.0}], LIMITS)
    assert found == {"length_drift": {"value": ratio, "limit": limit}}


def test_drift_counts_words_round_by_round_and_never_divides_by_zero():
    found = drift((["a b c"], ["a b"]), [(["a b", "a b c d"], ["a b c"]), ([], [])])
    assert [(e["round"], e["of"]) for e in found] == [
        (1, "samples"),
        (2, "samples"),
        (3, "answers"),
    ]
    assert [e["ratio"] for e in found] == [1.0, 0.0, 1.5]
    assert drift(([""], [""]), [])[0]["ratio"] == 0.0


def test_empty_texts_give_numbers():
    cell = dict.fromkeys(CALM, 0.0)
    found = tripped(cell, dict.fromkeys(TEACHER, 0.0), [], LIMITS)
    assert all(math.isfinite(x) for alarm in found.values() for x in alarm.values())
