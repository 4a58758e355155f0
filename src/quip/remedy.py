"""What `quip doctor` finds, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "mend"]


@dataclass(frozen=True)
class Finding:
    """`mend` stops a run; a `note` is worth knowing and mends itself or may stay."""

    level: Level
    what: str
    remedy: str = ""

    def line(self) -> str:
        return f"{self.level:<5}{self.what}{f' -> {self.remedy}' if self.remedy else ''}"
