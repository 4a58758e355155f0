"""Packages, their docstrings and their tests: each says what the folders hold."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from repository import ROOT, SOURCE

QUIP = SOURCE / "quip"
TESTS = ROOT / "tests"
PACKAGES = sorted(
    str(file.parent.relative_to(QUIP)) for file in QUIP.rglob("__init__.py") if file.parent != QUIP
)
LISTED = re.compile(r"^    ([\w/]+)  +\S", re.MULTILINE)
"""A line of a package's docstring that names a module, or a folder with a slash."""
MODULES = {
    str(file.relative_to(QUIP).with_suffix(""))
    for file in QUIP.rglob("*.py")
    if file.name != "__init__.py"
}


def docstring(package: str) -> str:
    tree = ast.parse((QUIP / package / "__init__.py").read_text(encoding="utf-8"))
    return ast.get_docstring(tree, clean=False) or ""


def contents(folder: Path) -> list[str]:
    """Modules by name and folders with a slash, in order."""
    modules = [file.stem for file in folder.glob("*.py") if file.stem != "__init__"]
    folders = [f"{sub.name}/" for sub in folder.iterdir() if (sub / "__init__.py").is_file()]
    return sorted([*modules, *folders])


def floors() -> list[list[str]]:
    """The packages by floor, highest first, as import-linter holds them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (layers,) = (found["layers"] for found in contracts if found["type"] == "layers")
    return [floor.split(" | ") for floor in layers]


# ---- docstrings


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_modules(package: str) -> None:
    assert LISTED.findall(docstring(package)) == contents(QUIP / package)


def test_the_root_lists_the_packages_by_floor() -> None:
    order = [f"{package}/" for floor in floors() for package in floor]
    assert LISTED.findall(docstring("")) == [*order, "prompts/"]
    assert sorted(order) == contents(QUIP)


@pytest.mark.parametrize("package", [name for name in PACKAGES if "/" not in name])
def test_a_package_says_what_it_may_import(package: str) -> None:
    (found,) = re.findall(r"^Imports (?:only )?(.+?)\.$", docstring(package), re.M | re.S)
    named = re.split(r",\s+|\s+and\s+", found) if found != "no other package" else []
    (place,) = (number for number, floor in enumerate(floors()) if package in floor)
    assert named == [below for floor in floors()[place + 1 :] for below in floor]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_a_docstring_and_no_code(package: str) -> None:
    """What a package re-exported, everybody would import, and re-run for."""
    tree = ast.parse((QUIP / package / "__init__.py").read_text(encoding="utf-8"))
    assert len(tree.body) == 1


# ---- tests


def home(module: str) -> Path:
    """Where the tests of a module stand: `core/text` -> tests/unit/core/test_text.py."""
    path = Path(module)
    folder = path.parent if path.parts[0] == "stages" else "unit" / path.parent
    return TESTS / folder / f"test_{path.name}.py"


def test_every_unit_test_is_named_after_a_module() -> None:
    homes = {home(module) for module in MODULES}
    for file in [*(TESTS / "unit").rglob("test_*.py"), *(TESTS / "stages").glob("test_*.py")]:
        own = [one for one in homes if one.parent == file.parent and named_after(file, one)]
        assert own, f"{file.relative_to(ROOT)}: no module of that name"


def named_after(file: Path, one: Path) -> bool:
    return file == one or file.stem.startswith(f"{one.stem}_")


def test_modules_without_a_test_file_are_named_with_the_tests_that_reach_them() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| tested by |\n")[2]
    rows = re.findall(r"^\| `([\w/]+)` \| ([\w, ]+) \| ([\w, ]+) \|$", page.split("\n\n")[0], re.M)
    named = [f"{package}/{name}" for package, names, _ in rows for name in names.split(", ")]
    assert sorted(named) == sorted(module for module in MODULES if not home(module).is_file())
    tests = {file.stem for file in TESTS.rglob("test_*.py")}
    assert not {test for *_, by in rows for test in by.split(", ")} - tests


def test_no_test_imports_a_test() -> None:
    """Nor conftest, which holds fixtures: what is shared stands in tests/support."""
    for file in TESTS.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        found = re.search(r"^\s*(?:from|import) (?:test_|conftest\b).*", text, re.MULTILINE)
        assert not found, f"{file.relative_to(ROOT)}: {found and found[0]}"
