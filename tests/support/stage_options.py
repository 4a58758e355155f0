"""A stage's command line."""

from __future__ import annotations


def options(**paths: object) -> list[str]:
    """A stage's command line: `options(out="x")` is ["--out", "x"]."""
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]
