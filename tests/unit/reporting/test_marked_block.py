"""A part of a page that a command writes is replaced, and nothing around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.reporting.marked_block import marked, replaced, rewrite
from quip.runtime.errors import DataError

PAGE = "before\n<!-- one -->\nold\n<!-- /one -->\n<!-- two -->\nkept\n<!-- /two -->\nafter\n"


def test_only_the_named_block_is_replaced(tmp_path: Path) -> None:
    wanted = PAGE.replace("old", "new \\1 text")
    assert replaced(PAGE, "one", "new \\1 text") == wanted
    file = tmp_path / "page.md"
    file.write_text(PAGE, encoding="utf-8")
    rewrite(file, "one", "new \\1 text")
    assert file.read_text(encoding="utf-8") == wanted


@pytest.mark.parametrize("page", ["nothing\n", PAGE + PAGE])
def test_a_page_without_the_marks_or_with_two_pairs_is_refused(page: str) -> None:
    with pytest.raises(DataError, match="want one block between <!-- one -->"):
        replaced(page, "one", "x")


def test_what_is_written_can_be_replaced_again() -> None:
    assert replaced(marked("a", "x"), "a", "y") == marked("a", "y")
