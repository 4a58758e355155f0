"""The paper's recipe as settings, and its numbers beside those of a run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from quip.cli import doctor, plan, plan_data
from quip.core.params import read_params
from quip.evaluation import published_results
from quip.stages.roles import KNOWN_ARMS
from quip.training import rounds

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "params.paper.yaml"
SHIPPED = read_params(ROOT / "params.yaml")


def keys(section: Any) -> set[str]:
    return set(section) if isinstance(section, dict) else set()


def test_the_recipe_has_the_sections_and_keys_of_the_shipped_params() -> None:
    recipe = read_params(RECIPE)
    assert set(recipe) == set(SHIPPED)
    for name in set(SHIPPED) - {"endpoints", "arms"}:
        assert keys(recipe[name]) == keys(SHIPPED[name]), name


def test_every_section_of_the_recipe_is_one_its_stage_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(RECIPE, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    assert list(doctor.parameter_mistakes(doctor.section_models())) == []


def test_the_recipe_is_the_paper_s() -> None:
    found = read_params(RECIPE)
    assert found["arms"] == list(KNOWN_ARMS)
    assert found["sft"]["base"] == "facebook/bart-large"
    assert found["prepare"]["limit"] == {"train": 12000, "val": 1000, "test": 1000, "ood": 500}
    assert (found["teacher"]["n"], found["teacher"]["exemplars"]) == (3, 0)
    assert found["sft"]["epochs"] == found["align"]["epochs"] == 10
    assert (found["candidates"]["k"], found["respond"]["num_beams"]) == (6, 5)
    assert found["critic"]["kind"] == "mcp_reason"
    uncorrected = {"scale": 1.0, "per_word": 0.0, "content_free": None}
    assert found["debias"] == {"method": "probability", **uncorrected}
    assert "Llama-2-70b-chat" in found["endpoints"][found["critic"]["endpoint"]]["model"]


@pytest.mark.parametrize("count", [1, 2, 10])
def test_its_ten_epochs_divide_into_the_paper_s_rounds(count: int, tmp_path: Path) -> None:
    found = read_params(RECIPE)
    rounds.write(count, found["arms"], tmp_path / "rounds.yaml")
    assert rounds.check(found["arms"], tmp_path / "rounds.yaml") == count
    assert found["align"]["epochs"] % count == 0


def test_the_plan_counts_the_paper_s_calls() -> None:
    """36,000 paraphrases are 12,000 calls; 12,000 pairs in both orders are 24,000 critiques; each
    arm's 1,500 judged inputs are 3,000 verdicts by each judge."""
    sizes = {"train": 12000, "val": 1000, "test": 1000, "ood": 500}
    data = plan_data.Data(sizes, {"plain": 34, "weaker": 34}, literal=90.0, exemplar=0.0)
    works = {(work.stage, work.endpoint): work for work in plan.plan(read_params(RECIPE), data)}
    assert works["teacher", "llama"].calls == 14500
    assert works["critique", "llama"].calls == 24000
    assert works["rank", "llama"].calls == 72000
    for judge in ("llama", "gpt4"):
        assert works["judge@dpo", judge].calls == 3000
    assert works["judge@dpo", "gpt4"].money > 0 == works["judge@dpo", "llama"].money


def cell(wtr: float, low: float, high: float) -> dict[str, Any]:
    return {"wtr": wtr, "ci95": [low, high]}


def test_the_run_s_rates_stand_beside_the_paper_s() -> None:
    arms = {
        "dpo": {"ood": {"gpt4": cell(0.5, 0.4, 0.6)}, "test": {"gpt4": cell(0.61, 0.51, 0.7)}},
        "ft": {"test": {"gpt4": cell(0.3, 0.25, 0.35)}},
    }
    lines = published_results.comparison_page(arms).splitlines()
    assert "| arm | paper: GPT-4 | paper: Llama-2 | paper: Llama-2, ood |" in "\n".join(lines)
    assert "| dpo | 52 | 60 | 47 | 61 [51, 70] | 50 [40, 60] |" in lines
    assert "| ft | 30 | 28 | 34 | 30 [25, 35] |  |" in lines
    assert "| brio | 48 | 53 | 42 |  |  |" in lines


def test_every_arm_has_its_row() -> None:
    assert set(published_results.RATES) == set(KNOWN_ARMS)
    assert yaml.safe_load(RECIPE.read_text())["register"]["name"] != SHIPPED["register"]["name"]
