"""Prompt files `prompts/*.txt`: reads them and fills their slots.

A file holds messages under the headings `--- system`, `--- user` and `--- assistant`; `{name}` is a
slot for a text. Lines before the first heading are notes (version, origin). A change of wording is
a change of the experiment, so prompts are files of their own.
"""

from __future__ import annotations

import re
from pathlib import Path

from quip.runtime.errors import ParamsError

FOLDER = Path(__file__).parents[2] / "prompts"
HEADING = re.compile(r"^--- (system|user|assistant)\n", re.MULTILINE)
SLOT = re.compile(r"\{([a-z_]+)\}")

Messages = tuple[tuple[str, str], ...]


def read(name: str) -> Messages:
    """The messages of `prompts/<name>.txt` as (role, text), with unfilled slots. Raises
    ParamsError."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.txt")))
        raise ParamsError(f"prompt '{name}' does not exist. Known prompts: {known}.")
    parts = HEADING.split(path.read_text(encoding="utf-8"))
    if len(parts) < 3:
        raise ParamsError(f"{path.name}: no '--- user' heading found.")
    return tuple(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def fill(messages: Messages, **values: str) -> Messages:
    """Put `values` into the slots. Raises ParamsError with the name of a slot without a value.

    Inserted text is not searched for slots, so braces in data are harmless.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ParamsError(f"prompt: no value for '{{{match[1]}}}'.")
        return values[match[1]]

    return tuple((role, SLOT.sub(value, text)) for role, text in messages)
