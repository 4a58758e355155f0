"""Who is whose kin, and how much a judge favours what its kin made."""

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
    assert preference_leakage.roles(files) == {"teacher": "m", "judges": {"e": "m"}}
    assert preference_leakage.roles({}) == {"judges": {}}


def test_one_model_is_known_under_other_spellings_but_not_by_a_part_of_its_name():
    assert preference_leakage.kin(ROLES) == {"own": ["teacher"], "crit": ["critic"], "free": []}
    assert not preference_leakage.same("gpt-4o", "gpt-4o-mini")


def points(**arms):
    return {arm: {f"i{n}": value for n, value in enumerate(values)} for arm, values in arms.items()}


def test_the_gap_is_own_minus_other_on_the_inputs_both_read():
    said = {"own": points(sft=[1, 0, 1], dpo=[1, 1, 1]), "free": points(sft=[0, 0], dpo=[1, 0])}
    [found] = preference_leakage.audit(said, ROLES, "sft", 200, 1)
    assert (found["role"], found["own"], found["other"], found["unrelated"]) == (
        *("teacher", "own", "free"),
        True,
    )
    assert (found["arms"]["sft"]["gap"], found["arms"]["sft"]["n"]) == (0.5, 2)
    assert found["arms"]["dpo"]["gap"] == 0.5
    assert found["gains"] == {"dpo": {"gap": 0.0, "ci95": found["gains"]["dpo"]["ci95"], "n": 2}}


def test_every_judge_outside_the_role_is_set_beside_it():
    said = {judge: points(sft=[1.0]) for judge in ("own", "crit", "free")}
    found = [(row["role"], row["own"], row["other"], row["unrelated"])
             for row in preference_leakage.audit(said, ROLES, "sft", 200, 1)]  # fmt: skip
    assert found == [
        ("teacher", "own", "crit", False),
        ("teacher", "own", "free", True),
        ("critic", "crit", "own", False),
        ("critic", "crit", "free", True),
    ]


def test_a_planted_taste_of_the_critic_for_what_it_trained_is_found():
    """The critic's own judge gives `dpo`, and only it, three tenths more than it is worth."""
    chance = np.random.default_rng(3)
    worth = {arm: chance.random(1000) for arm in ("sft", "dpo")}
    bonus = {"sft": 0.0, "dpo": 0.3}
    said = {
        judge: points(
            **{
                arm: list((values < 0.4 + bonus[arm] * (judge == "crit")).astype(float))
                for arm, values in worth.items()
            }
        )
        for judge in ("crit", "free")
    }
    [found] = preference_leakage.audit(said, ROLES, "sft", 1000, 1)
    low, high = found["gains"]["dpo"]["ci95"]
    assert low < 0.3 < high
    assert low > 0.2
    assert found["arms"]["sft"]["gap"] == 0


@pytest.mark.parametrize("said", [{}, {"own": points(sft=[1])}, {"free": points(sft=[1])}])
def test_without_two_judges_there_is_no_gap(said):
    assert preference_leakage.audit(said, ROLES, "sft", 200, 1) == []


def test_judges_that_share_no_arm_or_input_give_no_number():
    said = {"own": points(sft=[1]), "free": {"sft": {"other": 1.0}, "dpo": {"i0": 1.0}}}
    [found] = preference_leakage.audit(said, ROLES, "sft", 200, 1)
    assert (found["arms"], found["gains"]) == ({}, {})
