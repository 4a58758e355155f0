"""The real import closure of a stage, read from the source (imports inside functions too)."""

from __future__ import annotations

import ast
from pathlib import Path

from repository import SOURCE

WITHOUT_EFFECT = (
    "quip.runtime",
    "quip.tracking",
    "quip.serving",
    "quip.cli",
    "quip.llm",
    "quip.models.weights",
    "quip.models.weights_download",
    "quip.training.distributed",
)
"""Packages and modules that change no stage's output: messages, locks, MLflow (which only mirrors),
the fetching of files whose digests `quip.models.pins` fixes, in how many processes a student is
trained, and by which way and how fast a large model is asked. A change in them must not train a
student again, so they stand in no stage's `deps`; what they import does."""
WITH_EFFECT = ("quip.llm.requests",)
"""What is asked and what is believed, inside of a package that has no effect otherwise."""


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def has_effect(module: str) -> bool:
    file = file_of(module)
    if file is None or file.name == "__init__.py":  # a docstring
        return False
    return within(module, WITH_EFFECT) or not within(module, WITHOUT_EFFECT)


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
    return {module for module in seen if has_effect(module)}
