"""The tests leave the checkout as it was: `git status` says the same before and after a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkout_status import status, unchanged
from project_commands import commit, git


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one committed file."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    commit(tmp_path, "one")
    return tmp_path


def test_every_test_session_is_watched(request: pytest.FixtureRequest) -> None:
    assert "unchanged_checkout" in request.fixturenames


def test_a_file_left_in_the_root_fails_the_session(repository: Path) -> None:
    """candidates.jsonl, left by a test, was once committed."""
    with pytest.raises(AssertionError, match=r"candidates\.jsonl.*tmp_path"), unchanged(repository):
        (repository / "candidates.jsonl").write_text("{}\n")


def test_a_changed_file_fails_the_session(repository: Path) -> None:
    with pytest.raises(AssertionError, match=r"params\.yaml"), unchanged(repository):
        (repository / "params.yaml").write_text("seed: 2\n")


def test_work_that_is_not_committed_yet_is_no_fault_of_the_tests(repository: Path) -> None:
    (repository / "params.yaml").write_text("seed: 3\n")
    (repository / "notes.md").write_text("to do\n")
    assert len(status(repository)) == 2
    with unchanged(repository):
        pass


def test_a_folder_without_git_is_not_looked_at(tmp_path: Path) -> None:
    with unchanged(tmp_path):
        (tmp_path / "candidates.jsonl").write_text("{}\n")
