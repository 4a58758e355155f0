"""quip promote: only a challenger shown to be better becomes champion; promotions are recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli_runner import quip
from fake_endpoint import CRITIC_PROMPT, ChatServer, likes
from quip.cli.skill_packs import merge_params
from quip.core.jsonl import write_rows
from quip.core.params import read_params
from quip.core.records import LiteralText, Response
from quip.llm.requests import prompts
from quip.serving import promotion
from quip.tracking import mlflow_store, registry
from registry_project import NAME, alias, point_to, put, write

SHIPPED = Path(__file__).parents[3] / "params.yaml"
INPUTS = [LiteralText(id=f"t{i}", text=f"My bus number {i} was late.") for i in range(12)]


def version(arm: str, weights: bytes) -> str:
    """A registered version of an arm with these bytes as weights."""
    folder = Path("models", arm)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    return put(arm, folder)


def held() -> dict[str, str]:
    return registry.aliases(mlflow_store.connect(), NAME)


def history() -> list[dict[str, Any]]:
    return [entry for _, entry in registry.history(mlflow_store.connect(), NAME)]


@pytest.fixture
def project(checkout: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Champion 1 (arm sft) and challenger 2 (arm dpo), placeholder weights, 12 inputs."""
    roles = {
        "endpoints": {"scripted": {"base_url": server.url, "model": "m", "concurrency": 1}},
        "judge": {"endpoints": ["scripted"], "prompt": "critic"},
        "debias": {"scale": 1.0, "per_word": 0.0},
        "respond": {"num_beams": 1, "max_new_tokens": 4},
    }
    params = merge_params(read_params(SHIPPED), roles)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    folder = checkout / "prompts"
    folder.mkdir()
    (folder / "critic.txt").write_text(CRITIC_PROMPT)
    monkeypatch.setattr(prompts, "FOLDER", folder)
    write_rows("data/prepared/test.jsonl", INPUTS)
    alias_of = {"sft": "champion", "dpo": "challenger"}
    for arm, name in alias_of.items():
        alias(name, version(arm, arm.encode()))
    here("sft", "dpo")
    return checkout


def here(*arms: str) -> None:
    """The runs and responses of arms whose weights are in models/."""
    for arm in arms:
        point_to(arm)
        rows = [
            Response(input=r.id, split="test", literal=r.text, text=f"{arm} on {r.id}")
            for r in INPUTS
        ]
        write_rows(f"data/responses/{arm}.jsonl", rows)


def duel(score: float, low: float, high: float, key: str = "dpo_vs_sft") -> None:
    cell = {"score": score, "score_ci95": [low, high], "n": 120}
    write(Path("data/metrics/wtr.json"), {"duels": {key: {"test": {"scripted": cell}}}})


def test_a_challenger_with_an_interval_above_one_half_is_promoted(project: Path) -> None:
    duel(0.60, 0.51, 0.69)
    done = quip("promote")
    assert done.exit_code == 0, done.output
    assert "version 2 is now champion (score 0.600 [0.510, 0.690]" in done.stdout
    assert held() == {"champion": "2", "challenger": "1"}
    (entry,) = history()
    assert (entry["version"], entry["over"], entry["n"], entry["judge"]) == (
        *("2", "1", 120, "scripted"),
    )
    assert len(entry["data"]) == 32


@pytest.mark.parametrize(("low", "short"), [(0.44, "0.060 short"), (0.5, "0.000 short")])
def test_a_refused_challenger_learns_its_shortfall(project: Path, low: float, short: str) -> None:
    duel(0.53, low, 0.62)
    done = quip("promote")
    assert done.exit_code == 1
    assert short in done.stderr
    assert held() == {"champion": "1", "challenger": "2"}
    assert history() == []


def test_the_stage_s_duel_is_read_from_either_side(project: Path) -> None:
    duel(0.40, 0.31, 0.45, key="sft_vs_dpo")
    assert "score 0.600 [0.550, 0.690]" in quip("promote", "2").stdout


def test_verdicts_on_newer_weights_do_not_count_for_a_registered_version(
    project: Path, server: ChatServer, tiny_student: Path
) -> None:
    """The pipeline went as far as the duel, but `register` has not run."""
    shutil.copytree(tiny_student, "registered")
    number = put("dpo", Path("registered"))
    Path("models/dpo/model.safetensors").write_bytes(b"trained anew")
    here("dpo")
    duel(0.9, 0.8, 1.0)
    server.answer = likes(lambda text: 5.0 * text.startswith("sft"))
    done = quip("promote", number)
    assert done.exit_code == 1
    assert "score 0.000 [0.000, 0.000]" in done.stderr
    assert "dpo on t0" not in json.dumps(server.asked)


def test_the_first_champion_needs_no_comparison(project: Path) -> None:
    mlflow_store.connect().client.delete_registered_model_alias(NAME, "champion")
    assert "there was no champion" in quip("promote", "2").stdout
    assert held()["champion"] == "2"
    assert history()[-1]["over"] is None


def test_without_the_stage_s_verdicts_the_judge_is_asked(project: Path, server: ChatServer) -> None:
    server.answer = likes(lambda text: 2.0 * text.startswith("dpo"), lean=1.0)
    done = quip("promote")
    assert done.exit_code == 0, done.output
    assert "score 1.000 [1.000, 1.000] head to head on 12 test inputs" in done.stdout
    assert len(server.asked) == 24
    assert held()["champion"] == "2"


def test_versions_trained_elsewhere_answer_the_same_inputs_themselves(
    project: Path, server: ChatServer, tiny_student: Path
) -> None:
    duel(0.1, 0.0, 0.2)  # of this checkout's students: does not count for a third
    shutil.copytree(tiny_student, "elsewhere")
    number = put("dpo", Path("elsewhere"))
    server.answer = likes(lambda text: 5.0 * (not text.startswith("sft")))
    done = quip("promote", number)
    assert done.exit_code == 0, done.output
    shown = json.dumps(server.asked)
    assert all(row.text in shown for row in INPUTS)
    assert held() == {"champion": number, "challenger": "1"}


def test_a_forced_promotion_needs_a_reason_and_keeps_it(project: Path) -> None:
    for words in (["--force"], ["--reason", "x"], ["--force", "--reason", " "]):
        done = quip("promote", *words)
        assert done.exit_code == 2
        assert "go together" in done.stderr
    assert quip("promote", "--force", "--reason", "the judge is broken").exit_code == 0
    found = mlflow_store.connect().client.get_model_version(NAME, "2")
    assert found.tags["promotion.reason"] == "the judge is broken"
    (entry,) = history()
    assert entry["forced"] is True
    assert "the judge is broken" in entry["why"]


def test_the_history_is_kept_and_shown(project: Path) -> None:
    for number in ("2", "1"):
        quip("promote", number, "--force", "--reason", f"for {number}")
    assert [entry["version"] for entry in history()] == ["2", "1"]
    shown = quip("versions").stdout
    assert "version 2 over version 1: forced: for 2" in shown
    assert "version 1 over version 2: forced: for 1" in shown
    assert shown.splitlines()[1].split() == ["2", "dpo", "-", "-", "-", "challenger"]


def test_the_champion_is_not_promoted_again(project: Path) -> None:
    assert "is the champion already" in quip("promote", "champion").stdout
    assert history() == []


def test_equal_weights_and_unknown_versions_are_refused(project: Path) -> None:
    number = version("ft", b"sft")
    done = quip("promote", number)
    assert (done.exit_code, "have the same weights" in done.stderr) == (2, True)
    done = quip("promote", "7")
    assert done.exit_code == 2
    assert "no version '7'. There are: " in done.stderr


def test_the_gate_needs_more_than_one_half() -> None:
    def at(low: float) -> promotion.Duel:
        return promotion.Duel(0.6, low, 0.7, 9, "j", "d")

    promotion.refuse_unless_better(at(0.5001), "2", "1")
    with pytest.raises(promotion.NotPromoted):
        promotion.refuse_unless_better(at(0.5), "2", "1")
