"""The evaluate stage on a small made-up project."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

import evaluated_project
from quip.core.jsonl import read_rows, write_rows
from quip.core.records import Answer, Candidate, Critique, Response
from quip.runtime.errors import DataError, ParamsError
from quip.stages import evaluate
from quip.training import rounds

KEYS = {
    *("score_at_length", "score_at_length_ci95", "detectable"),
    "wtr",
    "ci95",
    "score",
    "score_ci95",
    "win",
    "tie",
    "loss",
    "n",
    "flip_rate",
    "length_ratio",
    "unparsed",
    "both_orders",
}
TEXT_KEYS = {
    "n",
    "words",
    "length_ratio",
    "copy_rate",
    "distinct_1",
    "distinct_2",
    "top_4gram",
    "top_4gram_share",
    "meaning",
    "self_similarity",
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return evaluated_project.write(tmp_path)


def evaluated(data):
    evaluate.main(evaluated_project.evaluate_arguments(data))
    return evaluated_project.read_json(data / "metrics/wtr.json")


def leaves(value):
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


def test_every_arm_control_and_duel_is_summarised(data):
    found = evaluated(data)
    assert list(found["arms"]) == ["sft", "dpo"]
    assert list(found["arms"]["dpo"]) == ["test", "ood"]
    assert set(found["arms"]["dpo"]["test"]["embedded"]) == KEYS
    assert found["arms"]["dpo"]["test"]["embedded"]["n"] == 12
    assert set(found["controls"]) == {"teacher", "copy", "best_of_n"}
    assert set(found["duels"]["dpo_vs_sft"]["test"]["embedded"]) == {*KEYS, "p", "p_holm"}
    assert set(found["texts"]) == {"sft", "dpo", "teacher", "copy", "best_of_n"}
    assert set(found["texts"]["sft"]["ood"]) == TEXT_KEYS
    assert found["texts"]["copy"]["test"]["copy_rate"] == 1.0


def test_only_judged_splits_are_measured(data):
    """Meaning scores exist only for texts that were judged; val is answered but not judged."""
    found = evaluated(data)
    assert list(found["texts"]["dpo"]) == list(found["texts"]["teacher"]) == ["test", "ood"]


def test_every_number_is_finite(data):
    numbers = [leaf for leaf in leaves(evaluated(data)) if not isinstance(leaf, str | None)]
    assert len(numbers) > 100
    assert all(math.isfinite(number) for number in numbers)


def test_each_judge_is_counted_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluated(evaluated_project.write(tmp_path, judges=("small", "large")))
    assert list(found["arms"]["sft"]["test"]) == ["large", "small"]


def test_one_arm_needs_no_duel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluated(evaluated_project.write(tmp_path, arms=("sft",)))
    assert found["duels"] == {}


@pytest.fixture
def several(tmp_path, monkeypatch):
    """Three arms by two judges: `small` is the teacher's and critic's own model, `large` is not."""
    monkeypatch.chdir(tmp_path)
    data = evaluated_project.write(tmp_path, 24, ("sft", "dpo", "brio"), ("small", "large"))
    judges = [{"endpoint": "small", "model": "hub/Q.gguf"}, {"endpoint": "large", "model": "L"}]
    for name, content in {"teacher": judges[0], "critic": judges[0], "judges": judges}.items():
        (data / f"roles/{name}.json").write_text(json.dumps(content))
    return data


def test_every_arm_is_compared_with_sft_by_every_judge_with_a_correction(several):
    found = evaluated(several)["differences"]
    assert list(found) == ["dpo", "brio"]
    cells = [found[arm]["test"]["large"] for arm in found]
    assert all(cell["n"] == cell["more"] + cell["equal"] + cell["less"] == 24 for cell in cells)
    low, high = sorted(cells, key=lambda cell: cell["p"])
    assert low["p_holm"] == pytest.approx(min(1.0, 2 * low["p"]))
    assert high["p_holm"] == pytest.approx(max(low["p_holm"], high["p"]))


def test_the_difference_is_that_of_the_scores(several):
    found = evaluated(several)
    arms = {arm: splits["test"]["large"]["score"] for arm, splits in found["arms"].items()}
    cell = found["differences"]["dpo"]["test"]["large"]
    assert cell["difference"] == pytest.approx(arms["dpo"] - arms["sft"])


def test_every_judge_rates_all_that_was_compared(several):
    found = evaluated(several)["ratings"]
    assert set(found) == {"small", "large"}
    assert set(found["large"]) == {"sft", "dpo", "brio", "teacher", "copy", "best_of_n"}
    assert found["large"]["teacher"]["rating"] == 0
    pair = evaluated(several)["judges"]["large and small"]
    assert (pair["order_of_arms"]["n"], pair["order_of_all"]["n"]) == (3, 6)


def test_the_leakage_audit_finds_roles_of_one_model_by_its_name(several):
    found = evaluated(several)["leakage"]
    assert [(row["role"], row["own"], row["other"], row["unrelated"]) for row in found] == [
        ("teacher", "small", "large", True),
        ("critic", "small", "large", True),
    ]
    assert set(found[0]["arms"]) == {"sft", "dpo", "brio"}
    assert set(found[0]["gains"]) == {"dpo", "brio"}
    arms, gains = found[0]["arms"], found[0]["gains"]
    assert gains["dpo"]["gap"] == pytest.approx(arms["dpo"]["gap"] - arms["sft"]["gap"])


def test_verdicts_that_no_two_arms_share_are_refused(data):
    path = data / "verdicts/dpo.jsonl"
    rows = [row for row in read_rows(path, Critique) if row.split != "test" or row.input < "test2"]
    unread = Answer(p_first=None, source="unread", raw="Both!")
    write_rows(path, rows)
    other = data / "verdicts/sft.jsonl"
    kept = [
        row.model_copy(update={"forward": unread}) if row.input < "test2" else row
        for row in read_rows(other, Critique)
        if row.split == "test"
    ]
    write_rows(other, [*kept, *(r for r in read_rows(other, Critique) if r.split != "test")])
    with pytest.raises(
        DataError, match=r"dpo less sft, test, judge 'embedded': no input has a readable verdict"
    ):
        evaluated(data)


def test_length_is_reported_by_round(data):
    """Round 1's student writes twice the words of the warm start; the last answers as it does."""
    rounds.write(2, ["sft", "dpo"])
    longer = [
        row.model_copy(update={"text": f"{row.text} {row.text}"})
        for row in read_rows(data / "candidates.jsonl", Candidate)
    ]
    write_rows(data / "rounds/dpo-1/candidates.jsonl", longer)
    found = evaluated(data)
    first, last = found["length_by_round"]["dpo"]
    assert (first["round"], first["of"], first["ratio"]) == (1, "samples", pytest.approx(2))
    assert (last["round"], last["of"]) == (2, "answers")
    assert found["alarms"]["dpo"]["length_drift"] == {"value": pytest.approx(2), "limit": 1.33}


def test_an_arm_that_copies_is_marked(data):
    for row in (rows := read_rows(data / "responses/dpo.jsonl", Response)):
        assert row.text != row.literal
    write_rows(
        data / "responses/dpo.jsonl",
        [row.model_copy(update={"text": row.literal}) for row in rows],
    )
    found = evaluated(data)["alarms"]
    assert found["dpo"]["copy_rate"] == {"value": 1.0, "limit": 0.2}
    assert "copy_rate" not in found.get("sft", {})


def test_plot_has_one_line_a_cell(data):
    evaluated(data)
    lines = (data / "plots/wtr.csv").read_text().splitlines()
    assert lines[0] == "arm,split,judge,win,tie,loss"
    assert len(lines) == 1 + 2 * 2
    assert sum(map(float, lines[1].split(",")[3:])) == pytest.approx(1, abs=1e-5)


def test_table_is_printed(data, capsys):
    evaluated(data)
    printed = capsys.readouterr().out
    assert "dpo_vs_sft" in printed
    assert "against the teacher" in printed


def test_a_second_run_writes_the_same_bytes(data):
    evaluated(data)
    first = (data / "metrics/wtr.json").read_bytes()
    evaluated(data)
    assert (data / "metrics/wtr.json").read_bytes() == first


def test_unread_verdicts_are_counted_and_never_vote(data):
    path = data / "verdicts/dpo.jsonl"
    rows = read_rows(path, Critique)
    unread = Answer(p_first=None, source="unread", raw="Both!")
    write_rows(
        path,
        [
            row.model_copy(update={"forward": unread}) if row.input == "test3" else row
            for row in rows
        ],
    )
    cell = evaluated(data)["arms"]["dpo"]["test"]["embedded"]
    assert (cell["n"], cell["unparsed"]) == (11, 1 / 12)


def test_a_cell_without_any_read_verdict_is_named(data):
    path = data / "verdicts/dpo.jsonl"
    unread = Answer(p_first=None, source="unread", raw="Both!")
    write_rows(
        path, [row.model_copy(update={"forward": unread}) for row in read_rows(path, Critique)]
    )
    with pytest.raises(DataError, match=r"dpo, test, judge 'embedded': none of 12 verdicts"):
        evaluated(data)


def test_missing_verdicts_of_a_named_arm_are_refused(data):
    (data / "verdicts/dpo.jsonl").unlink()
    with pytest.raises(DataError, match=r"verdicts/dpo\.jsonl: no such file"):
        evaluated(data)


def test_verdicts_of_another_arm_are_refused(data):
    (data / "verdicts/dpo.jsonl").write_bytes((data / "verdicts/sft.jsonl").read_bytes())
    with pytest.raises(DataError, match="compares 'sft' with 'teacher', not 'dpo'"):
        evaluated(data)


def test_missing_meaning_scores_are_named(data):
    path = data / "meaning.jsonl"
    kept = [line for line in path.read_text().splitlines() if json.loads(line)["name"] != "dpo"]
    path.write_text("\n".join(kept) + "\n")
    with pytest.raises(DataError, match="no meaning score for the test texts of 'dpo'"):
        evaluated(data)


@pytest.mark.parametrize("arms", ["sft", "[]", "{sft: 1}", "[1]"])
def test_arms_must_be_a_list_of_names(data, arms):
    params = data.parent / "params.yaml"
    params.write_text(params.read_text().replace("arms: [sft, dpo]", f"arms: {arms}"))
    with pytest.raises(ParamsError, match="key 'arms' is"):
        evaluated(data)


def test_evaluate_imports_no_torch():
    code = "import sys, quip.stages.evaluate; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
