"""Whether something wrote into a git checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unchanged(root: Path) -> Iterator[None]:
    """Fails when `git status` of `root` is another one at the end than at the start.

    Changes that are not committed yet may be there, as long as no other comes. A folder that is
    no git checkout is not looked at.
    """
    before = status(root)
    yield
    after = status(root)
    assert after == before, (
        f"the tests changed the checkout {root}: {', '.join(sorted(after ^ before))}. A test that "
        "writes takes the fixture `tmp_path`, `project` or `checkout` for its folder."
    )


def status(root: Path) -> set[str]:
    """The lines of `git status --porcelain`: each changed or untracked file with its state."""
    command = ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=all"]
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(command, cwd=root, env=own, capture_output=True, text=True)
    return set(done.stdout.splitlines())
