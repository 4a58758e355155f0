"""Collapse alarms: each limit from both sides, length by round, limits relative to the teacher."""

from __future__ import annotations

import math

import pytest

from quip.evaluation.alarms import Limits, length_drift, raised_alarms

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
def test_each_measure_beyond_its_limit_raises_an_alarm_with_value_and_limit(change, name, limit):
    [value] = change.values()
    found = raised_alarms({**CALM, **change}, TEACHER, [], LIMITS)
    assert found == {name: {"value": value, "limit": pytest.approx(limit)}}


def test_values_at_the_limits_raise_no_alarm():
    at = {"copy_rate": 0.2, "top_4gram_share": 0.2, "distinct_2": 0.75, "meaning": 0.5}
    at |= {"self_similarity": 0.24}
    rounds = [{"ratio": 0.75}, {"ratio": 1.33}]
    assert raised_alarms(at, {**TEACHER, "distinct_2": 1.0}, rounds, LIMITS) == {}


def test_a_phrase_that_the_teacher_uses_as_often_raises_no_alarm():
    teacher = {**TEACHER, "top_4gram_share": 0.4}
    assert raised_alarms({**CALM, "top_4gram_share": 0.4}, teacher, [], LIMITS) == {}


@pytest.mark.parametrize(("ratio", "limit"), [(0.7, 0.75), (1.4, 1.33)])
def test_length_may_drift_either_way_in_any_round(ratio, limit):
    found = raised_alarms(CALM, TEACHER, [{"ratio": ratio}, {"ratio": 1.0}], LIMITS)
    assert found == {"length_drift": {"value": ratio, "limit": limit}}


def test_drift_counts_words_round_by_round_and_never_divides_by_zero():
    found = length_drift((["a b c"], ["a b"]), [(["a b", "a b c d"], ["a b c"]), ([], [])])
    assert [(e["round"], e["of"]) for e in found] == [
        (1, "samples"),
        (2, "samples"),
        (3, "answers"),
    ]
    assert [e["ratio"] for e in found] == [1.0, 0.0, 1.5]
    assert length_drift(([""], [""]), [])[0]["ratio"] == 0.0


def test_empty_texts_give_numbers():
    cell = dict.fromkeys(CALM, 0.0)
    found = raised_alarms(cell, dict.fromkeys(TEACHER, 0.0), [], LIMITS)
    assert all(math.isfinite(x) for alarm in found.values() for x in alarm.values())
