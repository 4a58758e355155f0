"""Progress of a stage's calls: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

LOG_SECONDS = 60.0


class Progress:
    """Progress display, used as `with Progress(what, total, note) as bar`.

    Stored rows advance the bar but not the rate, so that the time left is right after a resume.
    `note()` returns the text on money and retries.
    """

    def __init__(self, what: str, total: int, note: Callable[[], str]) -> None:
        self.what, self.total, self.note = what, total, note
        self.done = self.fresh = 0
        self.began = self.logged = time.monotonic()

    def __enter__(self) -> Progress:
        hidden = not sys.stderr.isatty()
        self.bar = tqdm(
            desc=self.what, total=self.total, disable=hidden, smoothing=0, leave=False, unit="row"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def row(self, stored: bool) -> None:
        self.done += 1
        self.fresh += not stored
        if stored and not self.bar.disable:
            self.bar.n += 1
            self.bar.initial += 1
        elif not self.bar.disable:
            self.bar.set_postfix_str(self.note(), refresh=False)
            self.bar.update()
        elif time.monotonic() - self.logged > LOG_SECONDS:
            self.logged = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """Rows done, rate, time left and the text of `note`."""
        rate = self.fresh / max(time.monotonic() - self.began, 1e-9)
        left = f", {(self.total - self.done) / rate / 60:,.0f} min left" if rate else ""
        rows = f"{self.done:,} of {self.total:,} rows, {rate:.1f} a second{left}"
        return f"{self.what}: {rows}, {self.note()}"
