"""Each caveat appears when its limit is exceeded, and only then."""

from __future__ import annotations

import pytest

from fake_results import cell, results
from quip.evaluation.alarms import Limits, raised_alarms
from quip.reporting.caveats import ALARMS, list_caveats

GOOD = {"agreement": 0.8, "ci95": [0.7, 0.9], "by_kind": {"plain": {"agreement": 0.9, "n": 30,
        "ci95": [0.8, 1.0]}}}  # fmt: skip
APART = {"teacher": "a", "critic": "a", "judges": {"other": "b"}}


def test_a_sound_run_has_no_caveat():
    assert list_caveats(results(), GOOD, APART) == []


def test_one_model_in_all_roles_is_the_first_caveat():
    one = {"teacher": "qwen", "critic": "qwen", "judges": {"embedded": "qwen"}}
    found = list_caveats(results(), None, one)
    assert found[0].startswith("Teacher, critic and judge are one model (qwen).")
    assert "was not audited" in found[1]


@pytest.mark.parametrize(
    ("roles", "says"),
    [
        ({"teacher": "t", "critic": "c", "judges": {"j": "c"}}, "Judge j and critic are one model"),
        ({"teacher": "t", "critic": "c", "judges": {"j": "t"}}, "Judge j and teacher are one"),
    ],
)
def test_a_judge_that_shares_one_role_is_named(roles, says):
    assert says in list_caveats(results(), GOOD, roles)[0]


def test_an_unrelated_judge_beside_the_critic_is_enough():
    roles = {"teacher": "t", "critic": "c", "judges": {"j": "t", "k": "other"}}
    assert list_caveats(results(), GOOD, roles) == []


def test_one_model_in_all_roles_stays_a_caveat_beside_an_unrelated_judge():
    roles = {"teacher": "t", "critic": "t", "judges": {"j": "t", "k": "other"}}
    [said] = list_caveats(results(), GOOD, roles)
    assert said.startswith("Teacher, critic and judge are one model (t).")
    assert said.endswith("Read judge k beside it.")


def test_a_critic_at_chance_is_a_caveat():
    weak = {**GOOD, "ci95": [0.5, 0.7], "by_kind": {"weaker": {"agreement": 0.5, "n": 30,
            "ci95": [0.3, 0.7]}}}  # fmt: skip
    found = " ".join(list_caveats(results(), weak, APART))
    assert "not shown to be better than chance" in found
    assert "reaches chance: weaker 0.50 [0.30, 0.70]" in found
    assert "learned from this critic all the same" in found


def test_a_critic_above_chance_was_not_let_through_by_name():
    assert "all the same" not in " ".join(list_caveats(results(), GOOD, APART))


def test_controls_that_fail_are_caveats():
    controls = {
        "teacher": {"test": {"embedded": cell(0.3, 0.45)}},
        "copy": {"test": {"embedded": cell(0.3, 0.5)}},
    }
    found = " ".join(list_caveats(results(controls=controls), GOOD, APART))
    assert "does not hold the teacher's first and second paraphrase equal" in found
    assert "unchanged copy of the input" in found


def test_flips_unread_answers_and_length_are_caveats():
    odd = {"test": {"embedded": cell(0.3, 0.5, flip_rate=0.8, unparsed=0.2, length_ratio=2.0)}}
    found = " ".join(list_caveats(results() | {"arms": {"dpo": odd}}, GOOD, APART))
    for part in ("(dpo 80 %)", "(dpo 20 %)", "dpo 2.0"):
        assert part in found


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("copy_rate", "60 % of the texts of dpo are copies of the input (limit 20 %)."),
        ("stock_phrase", 'contain the words "the birds have been" (limit 20 %)'),
        ("distinct_2", "repeat themselves: distinct-2 0.60, limit 0.20."),
        ("self_similarity", "for different inputs are alike: self-similarity 0.60"),
        ("meaning", "lose the meaning of their inputs: mean cosine 0.60"),
        ("length_drift", "drift in length: 0.60 times the words"),
    ],
)
def test_every_alarm_is_a_caveat(name, says):
    past = {"alarms": {"dpo": {name: {"value": 0.6, "limit": 0.2}}}}
    texts = {"texts": {"dpo": {"test": {"top_4gram": "the birds have been"}}}}
    [said] = list_caveats(results() | past | texts, GOOD, APART)
    assert says in said


def test_every_alarm_has_a_sentence():
    cell_ = dict.fromkeys(("copy_rate", "top_4gram_share", "self_similarity"), 1.0)
    cell_ |= {"distinct_2": 0.0, "meaning": 0.0}
    teacher = {"top_4gram_share": 0.0, "self_similarity": 0.0, "distinct_2": 1.0}
    limits = {"copy_rate": 0.5, "stock_phrase": 0.5, "distinct_2": 0.5, "self_similarity": 0.5}
    limits |= {"meaning": 0.5, "length_drift": [0.8, 1.2]}
    ratio = [{"ratio": 2.0}]
    assert set(raised_alarms(cell_, teacher, ratio, Limits(**limits))) == set(ALARMS)


def test_a_gain_that_only_a_judge_of_the_critics_model_sees_is_a_caveat():
    row = {"role": "critic", "own": "j", "other": "k", "unrelated": True, "arms": {}}
    leak = [row | {"gains": {"dpo": {"gap": 0.29, "ci95": [0.14, 0.44], "n": 64}}}]
    [said] = list_caveats(results(leakage=leak), GOOD, APART)
    assert "one model with the critic, sees 29 points [14, 44] more of the gain of dpo than" in said
    leak[0]["gains"]["dpo"]["ci95"] = [-0.01, 0.44]
    assert list_caveats(results(leakage=leak), GOOD, APART) == []


def test_a_duel_won_only_before_correction_is_a_caveat():
    won = cell(0.51, 0.6, p_holm=0.12)
    [said] = list_caveats(results({"j": won}), GOOD, APART)
    assert "corrected for the arms compared, gives p = 0.12" in said
    assert list_caveats(results({"j": cell(0.51, 0.6, p_holm=0.02)}), GOOD, APART) == []
    assert list_caveats(results({"j": cell(0.45, 0.6, p_holm=0.5)}), GOOD, APART) == []


def test_judges_that_agree_by_chance_are_a_caveat():
    judges = {"a and b": {"kappa": 0.04, "ci95": [-0.1, 0.2], "same": 0.4, "n": 150}}
    [said] = list_caveats(results(judges=judges), GOOD, APART)
    assert "Judges a and b agree no more than by chance (Cohen's kappa 0.04 [-0.10, 0.20]" in said
    judges["a and b"]["ci95"] = [0.02, 0.2]
    assert list_caveats(results(judges=judges), GOOD, APART) == []
