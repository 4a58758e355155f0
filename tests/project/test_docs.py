"""The pages of docs: which there are, that links, commands and names lead somewhere, and the form.

Two pages are looked up word by word as the README is: the architecture, and the paper up to its
recipe, whose commands are for another machine.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from page_checks import FENCE, STAGES, command, links, packages, path_exists, problems, seen
from repository import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NAMES = {
    *("README", "tutorial", "architecture", "endpoints", "critics", "training", "evaluation"),
    *("paper", "results", "experiments", "serving", "performance", "another_skill", "log"),
}
WIDTH = 100
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PAPER = (DOCS / "paper.md").read_text(encoding="utf-8").split("\n## Running its recipe")[0]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def test_these_are_the_pages_and_the_index_names_each() -> None:
    assert {page.stem for page in PAGES} == NAMES
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert {link for link in re.findall(r"\]\((\w+)\.md\)", index)} == NAMES - {"README"}


def test_the_architecture_names_every_package_and_every_stage() -> None:
    for package in packages() - {"llm/requests", "evaluation/metrics"}:
        assert re.search(rf"^\| \d+ \| `{package}` \|", ARCHITECTURE, re.MULTILINE), package
    for stage in STAGES:
        assert f"\n| `{stage}` |" in ARCHITECTURE, stage
    assert len(packages()) >= 15
    assert len(STAGES) >= 24


@pytest.mark.parametrize("text", [ARCHITECTURE, PAPER], ids=["architecture", "paper"])
def test_everything_that_the_page_names_exists(text: str) -> None:
    assert problems(text, DOCS) == []


def test_the_checker_saw_what_the_pages_are_made_of() -> None:
    found = seen(ARCHITECTURE, DOCS) + seen(PAPER, DOCS)
    least = {"path": 40, "key": 30, "stage": 30, "package": 16, "word": 15, "variable": 4}
    least |= {"dvc": 8, "link": 3, "quip": 3}
    assert {kind: found[kind] for kind, n in least.items() if found[kind] < n} == {}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    found = list(links(page.read_text(encoding="utf-8"), page.parent))
    assert [wrong for _, wrong in found if wrong] == []


def test_a_link_to_a_missing_page_or_heading_is_noticed() -> None:
    text = "# One\n[a](nothing.md) [b](tutorial.md#nowhere) [c](#two) [d](#one) [e](paper.md)\n"
    assert [bool(wrong) for _, wrong in links(text, DOCS)] == [True, True, True, False, False]


@each_page
def test_the_commands_of_this_project_exist(page: Path) -> None:
    assert [wrong for words in told(page) for _, wrong in command(words) if wrong] == []


def test_the_commands_are_seen() -> None:
    assert sum(len(told(page)) for page in PAGES) > 45


def told(page: Path) -> list[list[str]]:
    """The command lines of quip, make and dvc repro in the page's `sh` blocks."""
    blocks = [
        body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "sh"
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.split("&&")[0], comments=True) for line in lines]
    return [found for found in words if found and ours(found)]


def ours(words: list[str]) -> bool:
    """Whether the checker knows this command whole; `quip human` and `quip calls` have verbs."""
    known = words[0] == "make" or words[:2] == ["dvc", "repro"]
    return known or (words[0] == "quip" and words[1] not in ("human", "calls"))


@each_page
def test_every_path_of_the_source_and_the_tests_exists(page: Path) -> None:
    spans = re.findall(r"`((?:src|tests|bench|docs|packs)/[\w./]+)`", page.read_text("utf-8"))
    assert [span for span in spans if not path_exists(span)] == []


@each_page
def test_lines_of_prose_fit(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    long = [line for line in prose.splitlines() if len(line) > WIDTH and line[:1] != "|"]
    assert [line for line in long if " " in line] == []


def test_no_page_names_a_path_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"[` ]/(home|root|work|Users)/", page.read_text("utf-8")), page.name
