"""Terminal input and JSON output of `quip say`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence


def read_sentences() -> Iterator[str]:
    """Sentences from a pipe, a line each, or typed at a prompt until an empty line or ctrl-D."""
    typed = sys.stdin.isatty()
    if typed:
        print("One sentence per line; an empty line ends.", file=sys.stderr)
    while line := read_line(typed):
        if line.strip():
            yield line.strip()
        elif typed:
            return


def read_line(typed: bool) -> str:
    """The next line with its newline; "" at the end of the input."""
    if not typed:
        return sys.stdin.readline()
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history and editing keys)
    try:
        return input("> ") + "\n"
    except (EOFError, KeyboardInterrupt):
        return ""


def as_json(literal: str, texts: Sequence[str], seed: int) -> str:
    found = {"literal": literal, "paraphrases": list(texts), "seed": seed}
    return json.dumps(found, ensure_ascii=False)
