"""How far it is: right after a resume, quiet in a log."""

from __future__ import annotations

import io
import sys

import pytest

from quip.llm import progress
from quip.llm.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_stored_rows_count_as_done_but_not_as_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("teacher", 1000, lambda: "0.5 spent, 3 retries") as bar:
        for _ in range(600):
            bar.row(stored=True)
        now[0] += 10
        for _ in range(20):
            bar.row(stored=False)
        line = bar.line()
    # 380 rows at 2 a second are 190 seconds; at the rate of all rows it would be 6
    assert line == ("teacher: 620 of 1,000 rows, 2.0 a second, 3 min left, 0.5 spent, 3 retries")


def test_a_log_gets_one_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("critic", 500, lambda: "") as bar:
        for _ in range(500):
            now[0] += 0.5
            bar.row(stored=False)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("critic: 121 of 500 rows, 2.0 a second, 3 min left")


def test_a_terminal_gets_a_bar_with_spend_and_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("teacher", 10, lambda: "0.5 spent, 3 retries") as bar:
        for number in range(10):
            bar.row(stored=number < 5)
        bar.bar.refresh()
        assert (bar.bar.n, bar.bar.initial) == (10, 5)
    assert "10/10" in screen.getvalue()
    assert "0.5 spent, 3 retries" in screen.getvalue()
