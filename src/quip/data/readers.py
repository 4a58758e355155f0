"""File readers: CSV, TSV, JSON, JSONL and plain text as records.

Every record holds its place in the file, so that later errors can name line and column. Two layouts
have readers of their own, because CSV readers misread them: EmpatheticDialogues (never quoted, a
comma is written `_comma_`), and chat exports that went through a semicolon spreadsheet (every
physical line quoted again and padded with `;;`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from quip.runtime.errors import DataError

CHAT_START = re.compile(r'"?(\d[\w-]*),"?(.*)')
# An odd number of quotation marks ends the dialogue; where the export miscounted, the last `",`.
SUMMARY = re.compile(r'(?<!")((?:"")*)",.*', re.DOTALL)
SUMMARY_AFTER_LOST_COUNT = re.compile(r'"+,(?=\S).*$')


@dataclass(frozen=True)
class Record:
    """One row of a file; `where` names file and line (or item) for error messages."""

    where: str
    fields: dict[str, Any]


def read_table(name: str, data: bytes) -> list[Record]:
    """The records of one file, in the format that the ending of `name` says.

    Raises DataError with line and column when the file is empty, not UTF-8 or malformed.
    """
    kind = PurePath(name).suffix.lower()
    if kind not in READERS:
        raise DataError(f"{name}: cannot read '{kind}' files. Wanted: {', '.join(READERS)}.")
    text = decode(name, data)
    records = list(READERS[kind](name, text)) if text.strip() else []
    if not records:
        raise DataError(f"{name}, line 1, column 1: the file holds no rows.")
    return records


def decode(name: str, data: bytes) -> str:
    """UTF-8 text with line ends "\\n". Raises DataError with line and column of a wrong byte."""
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise DataError(
            f"{name}, line {line}, column {column}: not UTF-8 (byte {data[error.start]:#04x}). "
            "Save the file as UTF-8."
        ) from None


def read_csv(name: str, text: str) -> Iterator[Record]:
    """CSV in the layout that the header shows: EmpatheticDialogues, mangled chats, or standard."""
    header = text.lstrip().split("\n", 1)[0].strip()
    if header.startswith("conv_id,"):
        return read_unquoted(name, text)
    if header.endswith(";") and "dialogue" in header and "," in header:
        return read_mangled_chats(name, text)
    return read_quoted(name, text, max(",;\t", key=header.count))


def read_quoted(name: str, text: str, delimiter: str) -> Iterator[Record]:
    """Standard CSV. Raises DataError with line and column."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for row in reader:
            if row and not header:
                header = [cell.strip() for cell in row]
            elif row:
                yield Record(f"{name}, line {line}", as_fields(row, header, f"{name}, line {line}"))
            line = reader.line_num + 1
    except csv.Error as error:
        column = open_quote(text.split("\n")[line - 1], delimiter)
        raise DataError(
            f"{name}, line {line}, column {column}: not CSV ({error}). "
            'Close the quotation mark, and write one inside a cell as "".'
        ) from None


def open_quote(line: str, delimiter: str) -> int:
    """The column, counted from 1, of the quotation mark that was most likely never closed."""
    return max(line.rfind(delimiter + '"') + 2, 1)


def as_fields(row: list[str], header: list[str], where: str) -> dict[str, Any]:
    """The cells of a row by column name. Raises DataError when their numbers differ."""
    if len(row) == len(header):
        return dict(zip(header, row, strict=True))
    column = min(len(row), len(header)) + 1
    raise DataError(
        f"{where}, column {column}: {len(row)} cells, but the header names {len(header)} columns "
        f"({', '.join(header)}). Put cells that hold a comma between quotation marks."
    )


def read_unquoted(name: str, text: str) -> Iterator[Record]:
    """EmpatheticDialogues as published: every comma separates, `_comma_` stands for a real comma.

    Quotation marks are plain text, and some lines have more cells than the header names.
    """
    names: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        cells = line.split(",")
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        if not names:
            names = cells
        elif len(cells) < len(names) - 1:  # the last cell, tags, may be absent
            as_fields(cells, names, where)
        else:
            yield Record(where, dict(zip(names, cells, strict=False)))


def read_mangled_chats(name: str, text: str) -> Iterator[Record]:
    """Chats whose export treated every line of a CSV file as a row of its own.

    A chat starts at a line with an id and ends before the next one. Its last line ends with the
    summary, which is cut off because it is not part of the dialogue.
    """
    chat: list[str] = []
    start, key = 0, ""
    for number, line in enumerate(text.split("\n"), start=1):
        plain = strip_padding(line)
        begin = CHAT_START.match(plain)
        if begin and chat:
            yield as_chat(name, start, key, chat)
        if begin:
            start, key, chat = number, begin[1], [begin[2]]
        elif chat:
            chat.append(plain)
    if chat:
        yield as_chat(name, start, key, chat)


def strip_padding(line: str) -> str:
    """A line without the outer quotation marks and the padding semicolons."""
    cells = next(csv.reader([line], delimiter=";"), []) if line.startswith('"') else [line]
    return ";".join(cells).rstrip(";")


def as_chat(name: str, line: int, key: str, chat: list[str]) -> Record:
    dialogue, cuts = SUMMARY.subn(r"\1", "\n".join(chat))
    if not cuts:
        dialogue = SUMMARY_AFTER_LOST_COUNT.sub("", dialogue)
    return Record(f"{name}, line {line}", {"id": key, "dialogue": dialogue.replace('""', '"')})


def read_jsonl(name: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{name}, line {number}"
            yield Record(where, as_object(parse_json(line, name, number), f"{where}, column 1"))


def read_json(name: str, text: str) -> Iterator[Record]:
    value = parse_json(text, name)
    if not isinstance(value, list):
        raise DataError(f"{name}, line 1, column 1: expected a JSON list of objects.")
    for number, item in enumerate(value, start=1):
        where = f"{name}, item {number}"
        yield Record(where, as_object(item, where))


def parse_json(text: str, name: str, line: int = 1) -> Any:
    """The JSON value of `text`, which starts at `line` of the file. Raises DataError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{name}, line {line + error.lineno - 1}, column {error.colno}"
        raise DataError(f"{where}: not JSON ({error.msg}).") from None
    except RecursionError:
        raise DataError(f"{name}, line {line}, column 1: JSON nested too deeply.") from None


def as_object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(value).__name__}.")
    return value


def read_text(name: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield Record(f"{name}, line {number}", {"text": line})


READERS = {
    ".csv": read_csv,
    ".tsv": lambda name, text: read_quoted(name, text, "\t"),
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".txt": read_text,
}
