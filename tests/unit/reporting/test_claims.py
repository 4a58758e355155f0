"""The claim states a difference only when the intervals support it."""

from __future__ import annotations

import pytest

from fake_results import cell, results
from quip.reporting import claims


def test_claim_states_the_numbers_and_that_the_interval_excludes_one_half():
    found = claims.claim(results({"embedded": cell(0.52, 0.64)}))
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
        (
            {"j": cell(0.6, 0.7), "k": cell(0.4, 0.6)},
            "judges do not agree (j: better; k: the interval includes one half): no difference",
        ),
        ({"j": cell(0.6, 0.7), "k": cell(0.3, 0.4)}, "do not agree (j: better; k: worse): no diff"),
        ({"j": cell(0.6, 0.7), "k": cell(0.55, 0.6)}, "Every interval excludes one half: dpo is"),
    ],
)
def test_claim_never_says_more_than_the_intervals(cells, says):
    assert says in claims.claim(results(cells))


def test_a_gain_that_is_gone_at_equal_length_is_not_claimed():
    longer = cell(0.6, 0.7, score_at_length=0.52, score_at_length_ci95=[0.44, 0.6])
    found = claims.claim(results({"j": longer}))
    assert "(at equal length 0.52 [0.44, 0.60])" in found
    assert "At equal length a difference between dpo and sft is not shown." in found
    kept = cell(0.6, 0.7, score_at_length=0.6, score_at_length_ci95=[0.55, 0.65])
    assert "dpo is judged better than sft" in claims.claim(results({"j": kept}))


def test_an_open_claim_says_what_could_have_been_seen():
    found = claims.claim(results({"j": cell(0.46, 0.58, detectable=0.118)}))
    assert "includes one half (differences from 12 points on are seen four times in five)" in found


def test_claim_without_a_duel_says_so():
    assert "dpo and sft were not compared head to head on test." in claims.claim(results())


def test_claim_of_one_arm_speaks_only_of_the_teacher():
    found = claims.claim(results(arms=("sft",)))
    assert found.startswith("Against the teacher on test")


def test_claim_follows_the_order_of_arms_when_sft_comes_last():
    found = results(arms=("dpo", "sft"))
    found["duels"] = {"sft_vs_dpo": {"test": {"j": cell(0.3, 0.4)}}}
    assert "sft against dpo, head to head" in claims.claim(found)


def less(low, high, at_length=None, n=64, **other):
    """A difference against the teacher, with its interval, and one at equal length."""
    return {
        "difference": (low + high) / 2, "ci95": [low, high], "n": n, "more": 20, "less": 10,
        "at_length": (low + high) / 2, "at_length_ci95": at_length or [low, high],
        "detectable": 0.19, **other,
    }  # fmt: skip


def both(duel, *differences, arms=("sft", "dpo")):
    """Results with one duel a judge and one difference a judge, judges j, k, ..."""
    found = results(duel, arms)
    cells = dict(zip("jk", differences, strict=False))
    return found | {"differences": {"dpo": {"test": cells}}}


WON = cell(0.6, 0.7, score_at_length_ci95=[0.55, 0.7], score_at_length=0.62)


@pytest.mark.parametrize(
    ("differences", "says"),
    [
        ([less(0.1, 0.3)], "dpo is judged better than sft"),
        ([less(-0.1, 0.3)], "against the teacher do not confirm it, so no difference between dpo"),
        ([less(-0.3, -0.1)], "against the teacher do not confirm it"),
        ([less(0.1, 0.3, at_length=[-0.1, 0.3])], "At equal length a difference"),
        ([less(0.1, 0.3, n=12)], "fewer than 20 inputs"),
    ],
)
def test_a_gain_counts_only_when_every_paired_interval_excludes_no_difference(differences, says):
    found = both({"j": WON}, *differences)
    assert says in claims.claim(found)
    [verdict] = claims.arm_verdicts(found)
    assert verdict["gain"] == ("better" if "judged better" in says else None)


def test_a_gain_counts_only_under_every_judge():
    found = both({"j": WON, "k": cell(0.45, 0.6)}, less(0.1, 0.3), less(0.1, 0.3))
    assert claims.arm_verdicts(found)[0]["gain"] is None
    found = both({"j": WON, "k": WON}, less(0.1, 0.3), less(-0.1, 0.3))
    assert claims.arm_verdicts(found)[0]["gain"] is None
    found = both({"j": WON, "k": WON}, less(0.1, 0.3), less(0.1, 0.3))
    assert claims.arm_verdicts(found)[0]["gain"] == "better"


def test_a_duel_that_names_sft_first_is_seen_from_the_arm():
    lost = cell(0.3, 0.4, score_at_length=0.38, score_at_length_ci95=[0.3, 0.45])
    found = both({}, less(0.1, 0.3), arms=("dpo", "sft"))
    found["duels"] = {"sft_vs_dpo": {"test": {"j": lost}}}
    assert "sft is judged worse than dpo" in claims.claim(found)
    [verdict] = claims.arm_verdicts(found)
    assert (verdict["arm"], verdict["base"], verdict["gain"]) == ("dpo", "sft", "better")
    [row] = verdict["judges"]
    assert row["duel"]["score_ci95"] == pytest.approx([0.6, 0.7])
    assert row["duel"]["score_at_length_ci95"] == pytest.approx([0.55, 0.7])
    assert row["difference"]["difference"] == pytest.approx(0.2)


def test_an_arm_that_was_never_compared_has_no_verdict():
    [verdict] = claims.arm_verdicts(results())
    assert (verdict["gain"], verdict["judges"]) == (None, [])


def test_alarms_stand_beside_the_verdict():
    found = both({"j": WON}, less(0.1, 0.3)) | {"alarms": {"dpo": {"copy_rate": {}}}}
    assert claims.arm_verdicts(found)[0]["alarms"] == ["copy_rate"]


def test_what_the_inputs_can_show_is_said_in_a_sentence():
    duel = cell(0.46, 0.58, n=64, detectable=0.152)
    assert claims.power_sentences(both({"j": duel}, less(-0.1, 0.3))) == [
        "With 64 inputs you can see differences above 15 points head to head, judged by j.",
        "With 64 inputs you can see differences above 19 points from sft in the scores against "
        "the teacher, judged by j.",
    ]
    assert claims.power_sentences(results(arms=("sft",))) == []
