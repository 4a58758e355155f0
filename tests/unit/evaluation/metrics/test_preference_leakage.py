"""Preference leakage: which judges share a model with a role, and how much they favour it."""

from __future__ import annotations

import numpy as np
import pytest

from quip.evaluation.metrics import preference_leakage

ROLES = {"teacher": "hub/T.gguf", "critic": "c", "judges": {"own": "t", "crit": "C", "free": "x"}}


def test_roles_name_the_models():
    files = {
        "teacher": {"endpoint": "e", "model": "m"},
        "judges": [{"endpoint": "e", "model": "m"}],
    }
    assert preference_leakage.model_roles(files) == {"teacher": "m", "judges": {"e": "m"}}
    assert preference_leakage.model_roles({}) == {"judges": {}}


def test_a_model_matches_its_other_spellings_but_not_a_part_of_its_name():
    assert preference_leakage.shared_roles(ROLES) == {
        "own": ["teacher"],
        "crit": ["critic"],
        "free": [],
    }
    assert not preference_leakage.same_model("gpt-4o", "gpt-4o-mini")


def points(**arms):
    return {arm: {f"i{n}": value for n, value in enumerate(values)} for arm, values in arms.items()}


def test_the_gap_is_own_minus_other_on_the_inputs_both_read():
    judged = {"own": points(sft=[1, 0, 1], dpo=[1, 1, 1]), "free": points(sft=[0, 0], dpo=[1, 0])}
    [found] = preference_leakage.leakage_audit(judged, ROLES, "sft", 200, 1)
    assert (found["role"], found["own"], found["other"], found["unrelated"]) == (
        *("teacher", "own", "free"),
        True,
    )
    assert (found["arms"]["sft"]["gap"], found["arms"]["sft"]["n"]) == (0.5, 2)
    assert found["arms"]["dpo"]["gap"] == 0.5
    assert found["gains"] == {"dpo": {"gap": 0.0, "ci95": found["gains"]["dpo"]["ci95"], "n": 2}}


def test_a_judge_with_a_role_is_compared_with_every_judge_without_it():
    judged = {judge: points(sft=[1.0]) for judge in ("own", "crit", "free")}
    found = [(row["role"], row["own"], row["other"], row["unrelated"])
             for row in preference_leakage.leakage_audit(judged, ROLES, "sft", 200, 1)]  # fmt: skip
    assert found == [
        ("teacher", "own", "crit", False),
        ("teacher", "own", "free", True),
        ("critic", "crit", "own", False),
        ("critic", "crit", "free", True),
    ]


def test_a_planted_bias_of_the_critic_for_its_students_is_found():
    """The critic's own judge gives `dpo`, and only it, three tenths more than it is worth."""
    chance = np.random.default_rng(3)
    worth = {arm: chance.random(1000) for arm in ("sft", "dpo")}
    bonus = {"sft": 0.0, "dpo": 0.3}
    judged = {
        judge: points(
            **{
                arm: list((values < 0.4 + bonus[arm] * (judge == "crit")).astype(float))
                for arm, values in worth.items()
            }
        )
        for judge in ("crit", "free")
    }
    [found] = preference_leakage.leakage_audit(judged, ROLES, "sft", 1000, 1)
    low, high = found["gains"]["dpo"]["ci95"]
    assert low < 0.3 < high
    assert low > 0.2
    assert found["arms"]["sft"]["gap"] == 0


@pytest.mark.parametrize("judged", [{}, {"own": points(sft=[1])}, {"free": points(sft=[1])}])
def test_without_two_judges_there_is_no_gap(judged):
    assert preference_leakage.leakage_audit(judged, ROLES, "sft", 200, 1) == []


def test_judges_that_share_no_arm_or_input_give_no_number():
    judged = {"own": points(sft=[1]), "free": {"sft": {"other": 1.0}, "dpo": {"i0": 1.0}}}
    [found] = preference_leakage.leakage_audit(judged, ROLES, "sft", 200, 1)
    assert (found["arms"], found["gains"]) == ({}, {})
