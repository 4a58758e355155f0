"""Which package may import which: import-linter holds it, and fails where an import breaks it.

The contracts stand in pyproject.toml and are held on the source as it is by `make check`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repository import ROOT, SOURCE

FLOORS = "A package imports only what stands below it"
CIRCLES = "No circle, neither of packages nor of modules"
STAGES = "No stage imports a stage"
METRICS = "Metrics are arithmetic"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The source and the contracts in a folder of their own."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / "quip", tmp_path / "src" / "quip", ignore=skipped)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache"]
    own = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)


def test_the_source_keeps_every_contract(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout + done.stderr
    for contract in (FLOORS, CIRCLES, STAGES, METRICS):
        assert f"{contract} KEPT" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/text.py", "import quip.llm.costs", FLOORS),
        ("runtime/clock.py", "def hidden():\n    from quip.core import text", FLOORS),
        ("evaluation/alarms.py", "from quip.reporting.claims import claim", FLOORS),
        ("data/votes.py", "import quip.models.pins", FLOORS),
        ("serving/export.py", "import quip.stages.roles", FLOORS),
        ("cellar/__init__.py", '"""A package without a floor."""', FLOORS),
        ("data/readers.py", "import quip.data.sources", CIRCLES),
        ("stages/sft.py", "def hidden():\n    import quip.stages.roles", STAGES),
        ("evaluation/metrics/text_metrics.py", "import quip.data.language", METRICS),
    ],
)
def test_a_broken_import_is_noticed(copied: Path, file: str, line: str, contract: str) -> None:
    changed = copied / "src" / "quip" / file
    changed.parent.mkdir(exist_ok=True)
    with changed.open("a", encoding="utf-8") as handle:
        handle.write(f"\n{line}\n")
    done = lint(copied)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout


def test_make_check_runs_it() -> None:
    recipe = (ROOT / "develop.mk").read_text(encoding="utf-8").partition("\ncheck:")[2]
    assert "/lint-imports" in recipe.partition("\n\n")[0]
