"""Every command of docs/tutorial.md runs, in its order, in one shell; other pages name what exists.

The tutorial's small run is the one that the end-to-end tests share: `quip try` finds it finished.
What it would take a person minutes to set up (`.venv`) is the environment that runs the tests. A
server is started on a free port, asked for its first page and ended.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from page_checks import FENCE, LINK, command
from project_commands import environment
from quip.cli import try_run
from repository import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = [TUTORIAL, ROOT / "docs" / "another_skill.md", ROOT / "CONTRIBUTING.md"]
SERVERS = {"mlflow ui", "quip serve"}
MAY_SAY_NO = {"quip promote"}
"""Ends with 1 when the challenger is not shown to be better."""
LOOKED_UP = {"make", "quip", "dvc", "mlflow", "python"}


def commands(text: str) -> list[str]:
    """The lines of every block marked `sh`, without blank lines and comments."""
    lines = [
        line
        for language, body in FENCE.findall(text)
        if language == "sh"
        for line in body.splitlines()
    ]
    return [line.strip() for line in lines if shlex.split(line, comments=True)]


SHELL = r"""
set -uo pipefail
answering() {  # URL COMMAND...: the server comes up, answers and goes when it is told to
    url=$1; shift
    set -m; "$@" & set +m
    for _ in $(seq 600); do
        if python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1])' "$url" 2>/dev/null
        then kill -TERM -- "-$!"; wait "$!"; return 0; fi
        kill -0 "$!" || return 1
        sleep 0.2
    done
    kill -KILL -- "-$!"; return 1
}
ended() {  # STATUS NUMBER [1]: note how the command ended; stop at the first that went wrong
    echo "@@ $2 $1"
    [ "$1" = 0 ] || [ "$1" = "${3:-0}" ] || exit 1
}
"""


def script(lines: list[str]) -> str:
    parts = [SHELL]
    for number, line in enumerate(lines):
        run = line
        if line in SERVERS:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            run = f"answering http://127.0.0.1:{port}/ {line} --port {port}"
        parts.append(f"{run}\nended $? {number} {int(line in MAY_SAY_NO)}\n")
    return "".join(parts)


@pytest.fixture
def clone(small: Path, tmp_path: Path) -> Path:
    """A checkout whose environment is set up, and in which the small run has been run before: what
    it keeps of that (caches, calls, MLflow) is the shared one's."""
    if not Path(sys.prefix, "bin", "activate").is_file():
        pytest.skip("the tests do not run in a virtual environment, which the tutorial activates")
    folder = tmp_path / "clone"
    try_run.copy_files(ROOT, folder, try_run.project_files(ROOT))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.prefix, "bin"))
    (folder / ".venv" / ".ready").touch()
    for name in (".dvc", ".quip", "mlruns"):
        shutil.copytree(small / name, folder / ".quip" / "try" / name, copy_function=linked)
    shutil.copy(small / "mlflow.db", folder / ".quip" / "try")
    return folder


def linked(source: str, target: str) -> None:
    """Large files, which nobody changes in place, are not copied."""
    (os.link if Path(source).stat().st_size > 2**20 else shutil.copy2)(source, target)


@pytest.mark.slow
def test_every_command_of_the_tutorial_runs(clone: Path) -> None:
    lines = commands(TUTORIAL.read_text(encoding="utf-8"))
    assert len(lines) > 20
    done = subprocess.run(
        ["bash", "-c", script(lines)],
        cwd=clone,
        env=environment(clone),
        capture_output=True,
        text=True,
    )
    ended = re.findall(r"^@@ (\d+) (\d+)$", done.stdout, re.MULTILINE)
    last = lines[min(len(ended), len(lines)) - 1]
    assert done.returncode == 0, f"{last}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    assert len(ended) == len(lines)
    assert ran_again(done.stdout) == ["evaluate", "report", "register", "prepare"]


def ran_again(output: str) -> list[str]:
    """The stages that ran after `dvc status` had nothing to say: those of the experiment, and the
    first of one's own repository."""
    later = output.split("Data and pipelines are up to date")[-1]
    return re.findall(r"Running stage '(.+)'", later)


# ---- what the pages name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_names_commands_and_pages_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = [shlex.split(line, comments=True) for line in commands(text)]
    spans = re.findall(r"`((?:make|quip|dvc|mlflow|python) [^`]+)`", FENCE.sub("", text))
    found += [shlex.split(" ".join(span.split())) for span in spans]
    known = [words for words in found if words[0] in LOOKED_UP]
    assert len(known) >= 8
    wrong = [said for words in known for _, said in command(words) if said]
    assert wrong == []
    links = [link for link in LINK.findall(text) if not link.startswith(("https://", "#"))]
    assert links
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_the_commands_are_seen_and_a_broken_one_is_noticed() -> None:
    text = "```sh\nmake run  # all\n\n# nothing\nquip fly\n```\n```text\nquip say\n```\n"
    assert commands(text) == ["make run  # all", "quip fly"]
    assert [said for _, said in command(["quip", "fly"])] == ["quip fly: no such verb"]


@pytest.mark.parametrize(("line", "code"), [("false", 1), ("quip promote", 0), ("true", 0)])
def test_the_shell_stops_at_a_command_that_fails(line: str, code: int) -> None:
    """`quip promote` may say no (here: an unknown command that ends with 1)."""
    shell = "quip() { return 1; }\n" + script([line, "echo next"])
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True)
    assert done.returncode == code
    assert ("next" in done.stdout) == (code == 0)
