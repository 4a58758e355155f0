"""Only the block between the marks of a page is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from quip.reporting.marked_block import add_marks, replace_block, rewrite_block
from quip.runtime.errors import DataError

PAGE = "before\n<!-- one -->\nold\n<!-- /one -->\n<!-- two -->\nkept\n<!-- /two -->\nafter\n"


def test_only_the_named_block_is_replaced(tmp_path: Path) -> None:
    wanted = PAGE.replace("old", "new \\1 text")
    assert replace_block(PAGE, "one", "new \\1 text") == wanted
    file = tmp_path / "page.md"
    file.write_text(PAGE, encoding="utf-8")
    rewrite_block(file, "one", "new \\1 text")
    assert file.read_text(encoding="utf-8") == wanted


@pytest.mark.parametrize("page", ["nothing\n", PAGE + PAGE])
def test_a_page_without_the_marks_or_with_two_pairs_is_refused(page: str) -> None:
    with pytest.raises(DataError, match="want one block between <!-- one -->"):
        replace_block(page, "one", "x")


def test_what_is_written_can_be_replaced_again() -> None:
    assert replace_block(add_marks("a", "x"), "a", "y") == add_marks("a", "y")
