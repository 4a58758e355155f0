"""The claim says what the intervals allow, and the doubts come up when they should."""

from __future__ import annotations

import pytest

from quip import findings


def cell(low, high, n=140, **other):
    score = (low + high) / 2
    return {
        "score": score, "score_ci95": [low, high], "n": n, "wtr": score, "ci95": [low, high],
        "flip_rate": 0.1, "length_ratio": 1.0, "unparsed": 0.0, **other,
    }  # fmt: skip


def results(duel=None, arms=("sft", "dpo"), **other):
    duels = {} if duel is None else {"dpo_vs_sft": {"test": duel}}
    every = {arm: {"test": {"embedded": cell(0.3, 0.5)}} for arm in arms}
    return {"arms": every, "duels": duels, "controls": {}, "texts": {}, **other}


def test_claim_states_the_numbers_and_that_the_interval_excludes_one_half():
    found = findings.claim(results({"embedded": cell(0.52, 0.64)}))
    assert found == (
        "dpo against sft, head to head on test: score 0.58 [0.52, 0.64], n = 140, judged by "
        "embedded. The interval excludes one half: dpo is judged better than sft. Against the "
        "teacher on test, judged by embedded: sft score 0.40 [0.30, 0.50], n = 140; dpo score "
        "0.40 [0.30, 0.50], n = 140."
    )


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"j": cell(0.46, 0.58)}, "includes one half: a difference between dpo and sft is not sh"),
        ({"j": cell(0.50, 0.58)}, "includes one half"),
        ({"j": cell(0.30, 0.44)}, "excludes one half: dpo is judged worse than sft"),
        ({"j": cell(1.0, 1.0, n=5)}, "fewer than 20 inputs this shows nothing"),
        ({"j": cell(0.6, 0.7), "k": cell(0.4, 0.6)}, "judges do not agree, so no difference"),
        ({"j": cell(0.6, 0.7), "k": cell(0.3, 0.4)}, "judges do not agree, so no difference"),
        ({"j": cell(0.6, 0.7), "k": cell(0.55, 0.6)}, "Every interval excludes one half: dpo is"),
    ],
)
def test_claim_never_says_more_than_the_intervals(cells, says):
    assert says in findings.claim(results(cells))


def test_a_gain_that_is_gone_at_equal_length_is_not_claimed():
    longer = cell(0.6, 0.7, score_at_length=0.52, score_at_length_ci95=[0.44, 0.6])
    found = findings.claim(results({"j": longer}))
    assert "(at equal length 0.52 [0.44, 0.60])" in found
    assert "At equal length a difference between dpo and sft is not shown." in found
    kept = cell(0.6, 0.7, score_at_length=0.6, score_at_length_ci95=[0.55, 0.65])
    assert "dpo is judged better than sft" in findings.claim(results({"j": kept}))


def test_an_open_claim_says_what_could_have_been_seen():
    found = findings.claim(results({"j": cell(0.46, 0.58, detectable=0.118)}))
    assert "includes one half (differences from 12 points on are seen four times in five)" in found


def test_judges_that_agree_by_chance_are_doubted():
    judges = {"a and b": {"kappa": 0.04, "ci95": [-0.1, 0.2], "same": 0.4, "n": 150}}
    [said] = findings.doubts(results(judges=judges), GOOD, APART)
    assert "Judges a and b agree no more than by chance (Cohen's kappa 0.04 [-0.10, 0.20]" in said
    judges["a and b"]["ci95"] = [0.02, 0.2]
    assert findings.doubts(results(judges=judges), GOOD, APART) == []


def test_claim_without_a_duel_says_so():
    assert "dpo and sft were not compared head to head on test." in findings.claim(results())


def test_claim_of_one_arm_speaks_only_of_the_teacher():
    found = findings.claim(results(arms=("sft",)))
    assert found.startswith("Against the teacher on test")


def test_claim_follows_the_order_of_arms_when_sft_comes_last():
    found = results(arms=("dpo", "sft"))
    found["duels"] = {"sft_vs_dpo": {"test": {"j": cell(0.3, 0.4)}}}
    assert "sft against dpo, head to head" in findings.claim(found)


GOOD = {"agreement": 0.8, "ci95": [0.7, 0.9], "by_kind": {"plain": {"agreement": 0.9, "n": 30,
        "ci95": [0.8, 1.0]}}}  # fmt: skip
APART = {"teacher": "a", "critic": "a", "judges": {"other": "b"}}


def test_no_doubt_where_there_is_no_reason():
    assert findings.doubts(results(), GOOD, APART) == []


def test_one_model_in_all_roles_is_the_first_doubt():
    one = {"teacher": "qwen", "critic": "qwen", "judges": {"embedded": "qwen"}}
    found = findings.doubts(results(), None, one)
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
    assert says in findings.doubts(results(), GOOD, roles)[0]


def test_an_unrelated_judge_beside_the_critic_is_enough():
    roles = {"teacher": "t", "critic": "t", "judges": {"j": "t", "k": "other"}}
    assert findings.doubts(results(), GOOD, roles) == []


def test_a_critic_at_chance_is_a_doubt():
    weak = {**GOOD, "ci95": [0.5, 0.7], "by_kind": {"weaker": {"agreement": 0.5, "n": 30,
            "ci95": [0.3, 0.7]}}}  # fmt: skip
    found = " ".join(findings.doubts(results(), weak, APART))
    assert "not shown to be better than chance" in found
    assert "reaches chance: weaker 0.50 [0.30, 0.70]" in found
    assert "learned from this critic all the same" in found


def test_a_critic_above_chance_was_not_let_through_by_name():
    assert "all the same" not in " ".join(findings.doubts(results(), GOOD, APART))


def test_controls_that_fail_are_doubts():
    controls = {
        "teacher": {"test": {"embedded": cell(0.3, 0.45)}},
        "copy": {"test": {"embedded": cell(0.3, 0.5)}},
    }
    found = " ".join(findings.doubts(results(controls=controls), GOOD, APART))
    assert "does not hold the teacher's first and second paraphrase equal" in found
    assert "unchanged copy of the input" in found


def test_flips_unread_answers_length_stock_phrases_and_copies_are_doubts():
    odd = {"test": {"embedded": cell(0.3, 0.5, flip_rate=0.8, unparsed=0.2, length_ratio=2.0)}}
    words = {"top_4gram_share": 0.6, "top_4gram": "the birds have been", "copy_rate": 0.5}
    texts = {"dpo": {"test": words}}
    found = " ".join(
        findings.doubts(results() | {"arms": {"dpo": odd}, "texts": texts}, GOOD, APART)
    )
    for part in ("(dpo 80 %)", "(dpo 20 %)", "dpo 2.0", '"the birds have been"', "are copies"):
        assert part in found
