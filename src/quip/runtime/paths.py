"""Paths of the checkout and of its state folder."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The main checkout, also from a temporary experiment folder (DVC sets DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def state(*parts: str) -> Path:
    """A path in the git-ignored state folder (call store, scratch, locks); makes its parent."""
    path = root().joinpath(".quip", *parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
