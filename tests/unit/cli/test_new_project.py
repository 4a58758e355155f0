"""`quip init`: a new repository in which the pipeline runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from quip.cli.main import app
from quip.cli.new_project import is_needed

ROOT = Path(__file__).parents[3]
LITERALS = (ROOT / "data/raw/literals.jsonl").read_text(encoding="utf-8").splitlines()
SENTENCES = [json.loads(line)["text"] for line in LITERALS[:60]]


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def init(*words: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, words)])


def in_repository(folder: Path, *words: str) -> str:
    own = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "GIT_"))}
    tools = Path(sys.executable).parent
    own |= {"PATH": f"{tools}{os.pathsep}{own['PATH']}", "PYTHONPATH": str(folder / "src")}
    done = subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def python(folder: Path, *words: str) -> str:
    return in_repository(folder, sys.executable, "-m", *words)


def table(tmp_path: Path) -> Path:
    file = tmp_path / "notes.csv"
    file.write_text("note\n" + "".join(f'"{text}"\n' for text in SENTENCES), encoding="utf-8")
    return file


def test_the_pipeline_runs_in_the_new_repository(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    done = init(mine, "--pack", "plain_language", "--data", table(tmp_path), "--column", "note")
    assert done.exit_code == 0, done.output
    assert "make run" in done.stdout
    rows = [json.loads(line) for line in (mine / "data/raw/literals.jsonl").open()]
    assert [row["text"] for row in rows] == SENTENCES
    parts = {part: sum(row["split"] == part for row in rows) for part in ("train", "val", "test")}
    assert f"sentences train {parts['train']}, val {parts['val']}, test {parts['test']}" in (
        done.stdout
    )
    assert all(parts.values())
    assert "Running stage 'prepare'" in python(mine, "dvc", "repro", "prepare", "roles")
    prepared = json.loads((mine / "data/metrics/prepare.json").read_text())["splits"]
    assert {part: prepared[part] for part in parts} == parts
    assert "Running stage" not in python(mine, "dvc", "repro", "prepare", "roles")
    assert "teacher" in python(mine, "dvc", "dag", "--mermaid")
    assert "teacher" in python(mine, "quip.cli.main", "plan")
    assert "mend" not in python(mine, "quip.cli.main", "doctor").replace("mend the", "")
    assert "python -m quip.models.weights" in in_repository(mine, "make", "--dry-run", "run")
    with (mine / "data/raw/literals.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"id": "new", "split": "train", "text": "The heron stood still all day."}\n')
    assert "Running stage 'prepare'" in python(mine, "dvc", "repro", "prepare")


def test_it_holds_the_pipeline_and_no_results_or_tests(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    assert init(mine).exit_code == 0
    staged = in_repository(mine, "git", "ls-files").splitlines()
    assert {".dvc/config", "dvc.yaml", "params.yaml", "README.md", "Makefile"} <= set(staged)
    assert "src/quip/stages/sft.py" in staged
    assert not [name for name in staged if name.startswith(("tests/", "docs/", "packs/", "bench/"))]
    assert not [name for name in staged if name.endswith(("dvc.lock", ".json"))]
    assert in_repository(mine, "git", "diff", "--name-only") == ""
    untracked = in_repository(mine, "git", "ls-files", "--others", "--exclude-standard")
    assert untracked == ""
    assert "remote" not in (mine / ".dvc/config").read_text()
    literals = (mine / "data/raw/literals.jsonl").read_bytes()
    assert literals == (ROOT / "data/raw/literals.jsonl").read_bytes()


def test_every_file_that_a_stage_needs_is_copied() -> None:
    assert is_needed("src/quip/prompts/teacher.txt")
    assert is_needed("data/raw/gold.jsonl")
    assert is_needed("data/teacher/.gitignore")
    assert not is_needed("data/metrics/wtr.json")
    assert not is_needed("docs/log.md")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("Dear diary")
    done = init(tmp_path)
    assert done.exit_code == 2
    assert "exists and is not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_data_that_cannot_be_read_make_no_repository(tmp_path: Path) -> None:
    done = init(tmp_path / "mine", "--data", table(tmp_path), "--column", "nota")
    assert done.exit_code == 2
    assert "no column 'nota' (column). Columns: note. Did you mean 'note'?" in done.stderr
    assert not (tmp_path / "mine").exists()


def test_outside_a_project_it_says_where_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = init(tmp_path / "mine")
    assert done.exit_code == 2
    assert "Run it from its root" in done.stderr
