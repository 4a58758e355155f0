"""What a contributor meets first: the hooks before a commit, and the container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from repository import ROOT

HOOKS = ROOT / ".pre-commit-config.yaml"
BIN = Path(sys.executable).parent


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    who = {
        f"GIT_{role}_{what}": "tester@example.org"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | who
    own |= {"PATH": f"{BIN}{os.pathsep}{own['PATH']}", "PRE_COMMIT_HOME": str(folder / ".hooks")}
    return subprocess.run(words, cwd=folder, env=own, capture_output=True, text=True)


@pytest.fixture
def hooked(tmp_path: Path) -> Path:
    """A little repository with our hooks and tools, one good file committed."""
    shutil.copy(HOOKS, tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.ruff.lint]\nselect = ["E", "F", "I"]\n[tool.mypy]\nfiles = ["good.py"]\n'
    )
    (tmp_path / "good.py").write_text("def one() -> int:\n    return 1\n")
    (tmp_path / ".gitignore").write_text(".venv\n.hooks\n.*cache\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    for words in (["git", "init", "-q"], ["git", "add", "--all"], ["git", "commit", "-qm", "one"]):
        assert run(tmp_path, *words).returncode == 0
    installed = run(tmp_path, sys.executable, "-m", "pre_commit", "install")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return tmp_path


def commit(folder: Path, name: str, text: str) -> subprocess.CompletedProcess[str]:
    (folder / name).write_text(text)
    run(folder, "git", "add", "--all")
    return run(folder, "git", "commit", "-qm", "two")


def test_a_good_commit_passes_the_hooks(hooked: Path) -> None:
    done = commit(hooked, "good.py", "def one() -> int:\n    return 2\n")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("ruff", "ruff format", "mypy"):
        assert re.search(rf"^{name}\.+Passed$", done.stdout + done.stderr, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "text", "hook"),
    [
        ("bad.py", "print(nowhere)\n", "ruff"),
        ("bad.py", "x = {  'a':1 }\n", "ruff format"),
        ("good.py", "def one() -> int:\n    return 'one'\n", "mypy"),
        ("data.bin", "x" * 2_000_001, "no model or data set in git"),
    ],
)
def test_a_bad_commit_is_stopped(hooked: Path, name: str, text: str, hook: str) -> None:
    done = commit(hooked, name, text)
    assert done.returncode == 1
    assert re.search(rf"^{hook}.*\.Failed$", done.stdout + done.stderr, re.MULTILINE)


def test_the_hooks_fetch_nothing_and_are_pinned() -> None:
    text = HOOKS.read_text(encoding="utf-8")
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}
    assert "\npre_commit==" in (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_the_container_has_a_python_that_the_project_accepts_and_sets_it_up() -> None:
    folder = ROOT / ".devcontainer"
    described = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    recipe = (folder / described["build"]["dockerfile"]).read_text(encoding="utf-8")
    found = re.search(r"^FROM python:(\d+)\.(\d+)", recipe, re.MULTILINE)
    assert found
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    assert tuple(map(int, found.groups())) >= least
    target = described["postCreateCommand"].removeprefix("make ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\n{target}:" in makefile
    assert {"git", "make"} <= set(recipe.split())
    telemetry = re.findall(r"^export (\w+(?:TELEMETRY|TRACK|ANALYTICS)) ", makefile, re.MULTILINE)
    assert set(telemetry) == set(described["containerEnv"])
