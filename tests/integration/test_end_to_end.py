"""The real thing, small: real weights, the real embedded engine, a real `dvc repro`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from project_commands import CANARY, environment
from quip.models import llamacpp

pytestmark = pytest.mark.slow


def quip(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "quip"), *words]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True
    )


def test_it_ends_in_measured_win_rates(small: Path) -> None:
    wtr = json.loads((small / "data/metrics/wtr.json").read_text(encoding="utf-8"))
    for arm in ("sft", "dpo"):
        for split in ("test", "ood"):
            row = wtr["arms"][arm][split]["embedded"]
            assert abs(row["win"] + row["tie"] + row["loss"] - 1) < 1e-3
            assert row["ci95"][0] <= row["wtr"] <= row["ci95"][1]
    assert {"teacher", "copy", "best_of_n"} <= set(wtr["controls"])
    assert "dpo_vs_sft" in wtr["duels"]


def test_the_critic_was_audited(small: Path) -> None:
    critic = json.loads((small / "data/metrics/critic.json").read_text(encoding="utf-8"))
    assert set(critic["by_kind"]) == {"plain", "off_topic", "nonsense", "length", "weaker"}
    assert critic["sources"] == {"learned": critic["n"]}
    assert critic["ci95"][0] > 0.5
    judge = critic["judges"]["embedded"]
    assert judge["sources"] == {"logprobs": judge["n"]}
    assert 0 <= judge["agreement"] <= 1


def test_dpo_moved_the_student(small: Path) -> None:
    runs = {
        arm: json.loads((small / f"data/runs/{arm}.json").read_text(encoding="utf-8"))
        for arm in ("sft", "dpo")
    }
    assert runs["sft"]["model_sha256"] != runs["dpo"]["model_sha256"]
    curve = (small / "data/curves/dpo.csv").read_text(encoding="utf-8")
    assert "reward_margin" in curve.splitlines()[0]


def test_a_second_repro_runs_no_stage(small: Path) -> None:
    again = dvc(small, "repro")
    assert "Running stage" not in again
    assert "up to date" in again


def dvc(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_another_arm_makes_no_training_or_critique_stale_that_is_there(small: Path) -> None:
    """What `dvc exp run -S 'arms=[sft,dpo,ft]'` would run: the new arm, and the comparisons that
    have one more side."""
    params = small / "params.yaml"
    shipped = params.read_text(encoding="utf-8")
    wanted = {**yaml.safe_load(shipped), "arms": ["sft", "dpo", "ft"]}
    try:
        params.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
        dvc(small, "repro", "roles")
        stale = {name for name, changes in json.loads(dvc(small, "status", "--json")).items()}
    finally:
        params.write_text(shipped, encoding="utf-8")
        dvc(small, "repro", "roles")
    assert "baseline@ft" in stale
    assert stale <= {
        *("baseline@ft", "respond@ft", "judge@ft"),
        *("duel", "control", "meaning", "safety", "evaluate", "report", "register"),
    }
    assert json.loads(dvc(small, "status", "--json")) == {}


def test_the_report_stands_alone(small: Path) -> None:
    page = (small / "data/report/report.html").read_text(encoding="utf-8")
    assert 'src="http' not in page
    assert "dpo" in page


def test_the_champion_is_registered_and_answers(small: Path) -> None:
    registry = json.loads((small / "data/registry.json").read_text(encoding="utf-8"))
    aliases = {alias for row in registry.values() for alias in row["aliases"]}
    assert aliases == {"champion", "challenger"}
    script = (
        "import mlflow; print(mlflow.pyfunc.load_model('models:/quip-student@champion')"
        ".predict(['I missed my bus.'])[0])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        cwd=small,
        env=environment(small),
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    assert len(said.stdout.strip()) > 5


def test_quip_say_answers_in_the_terminal(small: Path) -> None:
    said = quip(small, "say", "I missed my bus.", "--n", "2")
    assert said.returncode == 0, said.stderr[-2000:]
    assert len(said.stdout.strip().splitlines()) >= 2


def test_quip_results_prints_the_table(small: Path) -> None:
    shown = quip(small, "results")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "dpo" in shown.stdout
    assert "report.html" in shown.stdout


def test_the_engine_listens_on_the_loopback_only(small: Path) -> None:
    with llamacpp.serve("qwen2.5-coder-1.5b-instruct-q4_k_m", 1) as base_url:
        found = psutil.Process().net_connections(kind="inet")
        assert base_url.startswith("http://127.0.0.1:")
        assert {end.laddr.ip for end in found if end.status == psutil.CONN_LISTEN} == {"127.0.0.1"}


def test_a_key_in_the_environment_is_written_nowhere(small: Path) -> None:
    files = [path for path in small.rglob("*") if path.is_file()]
    assert len(files) > 100
    leaks = [path for path in files if CANARY.encode() in path.read_bytes()]
    assert not leaks


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_a_colleague_s_clone_pulls_everything_and_runs_only_what_changes(
    small: Path, tmp_path: Path
) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    dvc(small, "remote", "add", "--force", "--default", "shared", str(remote))
    git(small, "add", "--all")
    git(small, "commit", "--message", "a small run")
    dvc(small, "push")
    git(small, "clone", str(small), str(clone))
    dvc(clone, "pull")
    assert "Running stage" not in dvc(clone, "repro")
    params = clone / "params.yaml"
    wanted = yaml.safe_load(params.read_text(encoding="utf-8"))
    wanted["evaluate"]["resamples"] += 1
    params.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    ran = re.findall(r"Running stage '(.+)'", dvc(clone, "repro"))
    assert ran == ["evaluate", "report", "register"]
    registered = json.loads((clone / "data/registry.json").read_text(encoding="utf-8"))
    assert registered["dpo"]["aliases"] or registered["sft"]["aliases"]
    assert not (clone / ".quip" / "calls.journal").exists()
