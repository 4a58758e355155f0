"""lineage: hashes that equal DVC's, and the digest of a student."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.runtime.errors import DataError
from quip.tracking import lineage

LOCK = """
schema: '2.0'
stages:
  imitation:
    cmd: x
    outs:
    - {path: data/pairs.jsonl, hash: md5, md5: 0123456789abcdef0123456789abcdef, size: 6}
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/pairs.jsonl").write_text("hello\n")


def test_the_hash_in_dvc_lock_is_taken_while_the_size_agrees() -> None:
    Path("dvc.lock").write_text(LOCK)
    path = Path("data/pairs.jsonl")
    assert lineage.data_hash(path) == "0123456789abcdef0123456789abcdef"
    path.write_text("hello again\n")
    assert lineage.data_hash(path) == lineage.hash_file(path, "md5")


def test_without_dvc_lock_the_hash_is_computed_as_dvc_does() -> None:
    assert lineage.data_hash(Path("data/pairs.jsonl")) == "b1946ac92492d2347c6235b4d2611184"


def test_a_folder_has_the_hash_that_dvc_gives_it() -> None:
    """The expected value was written by `dvc add` (3.67.1) on this folder."""
    Path("data/b").mkdir()
    Path("data/b/x.txt").write_text("x")
    Path("data/a.txt").write_text("a")
    assert lineage.data_hash(Path("data")) == "43ec4e864483549ca1b0d2ab5a1ea8b8.dir"


def test_a_digest_changes_with_any_weight_and_any_file_name() -> None:
    folder = Path("model")
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    (folder / "config.json").write_text("{}")
    first = lineage.model_digest(folder)
    (folder / "config.json").write_text('{"a": 1}')
    assert lineage.model_digest(folder) == first
    (folder / "model.safetensors").write_bytes(b"2")
    assert lineage.model_digest(folder) != first


def test_the_digest_equals_the_one_that_training_writes() -> None:
    from quip.models import student

    Path("a.safetensors").write_bytes(b"1")
    Path("b.safetensors").write_bytes(b"2")
    assert lineage.model_digest(Path()) == student.weights_digest(Path())


def test_a_folder_without_weights_is_refused() -> None:
    with pytest.raises(DataError, match=r"data: no \*\.safetensors file"):
        lineage.model_digest(Path("data"))


def test_outside_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(Path.cwd().parent))
    assert lineage.git_commit() is None
