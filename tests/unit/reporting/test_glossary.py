"""Glossary: each term is defined once and names existing code; docs/evaluation.md is up to date."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from quip.evaluation.alarms import Limits
from quip.reporting import glossary
from quip.reporting.marked_block import replace_block

ROOT = Path(__file__).parents[3]
TERMS: list[dict[str, Any]] = [e for block in glossary.read_sections() for e in block["terms"]]


def test_the_evaluation_page_holds_what_the_glossary_writes() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert replace_block(page, glossary.BLOCK, glossary.markdown()) == page, (
        "run `python -m quip.reporting.glossary docs/evaluation.md`"
    )


def test_every_term_is_defined_once() -> None:
    ids, names = ([entry[key] for entry in TERMS] for key in ("id", "term"))
    assert len(TERMS) >= 40
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("entry", TERMS, ids=lambda entry: entry["id"])
def test_the_code_of_a_definition_exists(entry: dict[str, Any]) -> None:
    file = ROOT / glossary.module_path(entry["code"])
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    _, dot, name = entry["code"].partition(".")
    assert not dot or name in functions


def test_every_limit_of_the_alarms_is_explained() -> None:
    formulas = " ".join(entry.get("formula", "") for entry in TERMS)
    assert all(f"`{name}`" in formulas for name in Limits.model_fields)


def test_length_control_is_cited_where_it_is_defined() -> None:
    [entry] = [entry for entry in TERMS if entry["id"] == "at_length"]
    assert "AlpacaEval" in entry["source"]
    assert "2404.04475" in entry["source"]
