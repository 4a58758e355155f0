"""The real import closure of a stage, read from the source (imports inside functions too)."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"

WITHOUT_EFFECT = {
    "quip",
    "quip.stages",
    "quip.errors",
    "quip.stage",
    "quip.clock",
    "quip.launching",
    "quip.tracking",
    "quip.outbox",
    "quip.lineage",
    "quip.weights",
    "quip.download",
    "quip.oracle",
    "quip.asking",
    "quip.batch",
    "quip.calls",
    "quip.rebuilding",
    "quip.client",
    "quip.endpoints",
    "quip.ledger",
    "quip.legacy",
    "quip.limits",
    "quip.progress",
    "quip.store",
}
"""Modules that change no stage's output: messages, locks, MLflow (which only mirrors), the fetching
of files whose digests `quip.pins` fixes, in how many processes a student is trained, and by which
way and how fast a large model is asked (what is asked and what is believed is in `quip.replies` and
the roles' files). A change in them must not train a student again, so they stand in no stage's
`deps`; what they import does."""


def file_of(module: str) -> Path | None:
    path = SOURCE.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(module: str) -> set[str]:
    """The quip modules that `module` imports itself."""
    file = file_of(module)
    assert file is not None, f"no source for {module}"
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "quip" and file_of(name)}


def closure(module: str) -> set[str]:
    """Everything of quip that `module` imports, directly or not, itself included, without the
    modules that have no effect."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += imports(current)
    return seen - WITHOUT_EFFECT
