"""The evaluate stage on a small made-up project."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

import measured
from quip.errors import DataError, ParamsError
from quip.records import Answer, Critique, read_rows, write_rows
from quip.stages import evaluate

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
}


def arguments(data):
    return [
        "--verdicts",
        f"{data}/verdicts",
        "--responses",
        f"{data}/responses",
        "--references",
        f"{data}/imitation/references.jsonl",
        "--meaning",
        f"{data}/meaning.jsonl",
        "--out",
        f"{data}/metrics/wtr.json",
        "--plots",
        f"{data}/plots/wtr.csv",
        "--paper",
        f"{data}/metrics/paper.md",
    ]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return measured.write(tmp_path)


def evaluated(data):
    evaluate.main(arguments(data))
    return measured.read_json(data / "metrics/wtr.json")


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
    assert set(found["duels"]["dpo_vs_sft"]["test"]["embedded"]) == KEYS
    assert set(found["texts"]) == {"sft", "dpo", "teacher", "copy", "best_of_n"}
    assert set(found["texts"]["sft"]["ood"]) == TEXT_KEYS
    assert found["texts"]["copy"]["test"]["copy_rate"] == 1.0


def test_only_judged_splits_are_measured(data):
    """Meaning scores exist only for texts that were judged; val is answered but not judged."""
    found = evaluated(data)
    assert list(found["texts"]["dpo"]) == list(found["texts"]["teacher"]) == ["test", "ood"]


def test_every_number_is_finite(data):
    numbers = [leaf for leaf in leaves(evaluated(data)) if not isinstance(leaf, str)]
    assert len(numbers) > 100
    assert all(math.isfinite(number) for number in numbers)


def test_each_judge_is_counted_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluated(measured.write(tmp_path, judges=("small", "large")))
    assert list(found["arms"]["sft"]["test"]) == ["large", "small"]


def test_one_arm_needs_no_duel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = evaluated(measured.write(tmp_path, arms=("sft",)))
    assert found["duels"] == {}


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
