"""Sources of literals: the shipped files, public data sets, the user's own files.

A source is read as published. EmpatheticDialogues gives one literal for each conversation
(`prompt`). Chats in the layout of SAMSum give the sentences of their messages. Any other table
gives the texts of one column. Published splits are kept.
"""

from __future__ import annotations

import errno
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from quip.core.params import did_you_mean
from quip.core.text import digest, tidy
from quip.data.readers import READERS, Record, read_table
from quip.runtime.errors import DataError
from quip.runtime.paths import root

SPLITS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
COLUMNS = ("text", "literal", "sentence", "prompt", "content")
PLACEHOLDER = re.compile(r"<\w+>")  # such as <file_photo> in chats
SPEAKER = re.compile(r"[^:\n]{1,40}:\s*")
ABBREVIATIONS = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\b[ap]\.m\.)"
SENTENCE_END = re.compile(rf"(?<=[.!?…]){ABBREVIATIONS}\s+")


@dataclass(frozen=True)
class SourceLiteral:
    """One literal of a source. `chat` is the id of its chat, whose sentences stay in one split."""

    id: str
    text: str
    split: str | None = None
    emotion: str | None = None
    chat: str = ""


@dataclass(frozen=True)
class PublicDataset:
    """A public data set: its name and revision on the hub, and how to download it by hand."""

    hub: str
    revision: str | None
    by_hand: str


PUBLIC = {
    "empatheticdialogues": PublicDataset(
        "facebook/empathetic_dialogues",
        "refs/convert/parquet",  # the main branch is a loading script, which is never run
        "empatheticdialogues.tar.gz (linked from github.com/facebookresearch/EmpatheticDialogues)",
    ),
    "samsum": PublicDataset(
        "knkarthick/samsum",  # the original name is gone from the hub
        None,
        "corpus.7z (ancillary file of arXiv 1911.12237) and unpack it into a folder",
    ),
}


def read_source(key: str, source: str, column: str | None, shipped: Path) -> list[SourceLiteral]:
    """The literals of `source`: "shipped", a name in PUBLIC, or a path.

    `key` is the params key of the source, for messages. Raises DataError when it cannot be read.
    """
    if source == "shipped":
        tables = read_files(shipped)
    elif source in PUBLIC:
        tables = read_hub(key, source)
    else:
        tables = read_files(locate(key, source))
    return [found for split, records in tables for found in literals(key, records, column, split)]


def locate(key: str, source: str) -> Path:
    """`source` as a path, relative to the working folder or to the main checkout's root."""
    for path in (Path(source), root() / source):
        if path.exists():
            return path
    known = ["shipped", *PUBLIC]
    raise DataError(
        f"{key}: '{source}' is neither a file or folder nor one of {', '.join(known)}."
        f"{did_you_mean(source, known)}"
    )


Tables = Iterator[tuple[str | None, list[Record]]]


def read_files(path: Path) -> Tables:
    """The records of one file, or of the split files (train, valid, test) of a folder or archive.

    Raises DataError when there is no such file, or no split file in the folder or archive.
    """
    if path.is_dir():
        parts = [
            (str(file), file.read_bytes()) for file in sorted(path.iterdir()) if split_of_file(file)
        ]
    elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
        parts = list(read_archive(path))
    elif path.is_file():
        yield None, read_table(str(path), path.read_bytes())
        return
    else:
        raise DataError(f"{path}: no such file.")
    if not parts:
        raise DataError(f"{path}: holds no train.csv, valid.csv or test.csv (or .json, .jsonl).")
    for name, data in parts:
        yield split_of_file(name), read_table(name, data)


def split_of_file(name: str | Path) -> str | None:
    """The split that a file's name says; None for other names and formats."""
    path = PurePosixPath(str(name))
    return SPLITS.get(path.stem.lower()) if path.suffix.lower() in READERS else None


def read_archive(path: Path) -> Iterator[tuple[str, bytes]]:
    """The split files of a tar archive, read into memory; nothing is unpacked to disk."""
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                file = archive.extractfile(member) if split_of_file(member.name) else None
                if file:
                    yield f"{path}:{member.name}", file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(
            f"{path}: not a readable tar archive ({reason}). Download it again."
        ) from None


def read_hub(key: str, source: str) -> Tables:
    """A public data set, loaded by `datasets`. Raises DataError with how to download it by hand."""
    import datasets  # heavy, and only for this source

    public = PUBLIC[source]
    try:
        loaded = datasets.load_dataset(public.hub, revision=public.revision)
    except (OSError, RuntimeError, ValueError, datasets.exceptions.DatasetsError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        raise DataError(
            f"{key}: '{source}' ({public.hub}) could not be loaded: {tidy(str(error))[:200]}. "
            f"Download {public.by_hand} and put its path there instead of the name."
        ) from None
    for name, part_of_it in loaded.items():
        rows = enumerate(part_of_it, start=1)
        yield (
            SPLITS.get(str(name)),
            [Record(f"{public.hub} {name}, row {n}", dict(row)) for n, row in rows],
        )


def literals(
    key: str, records: list[Record], column: str | None, split: str | None
) -> Iterator[SourceLiteral]:
    """The literals of one table, in the layout that its columns show."""
    columns = list(records[0].fields)
    if column in (None, "dialogue") and "dialogue" in columns:
        return chat_literals(records, split)
    if column in (None, "prompt") and {"conv_id", "prompt"} <= set(columns):
        return column_literals(one_per_conversation(records), "prompt", split)
    return column_literals(records, choose_column(key, records[0], columns, column), split)


def choose_column(key: str, first: Record, columns: list[str], column: str | None) -> str:
    """The column to read: `column`, else the first of COLUMNS, else the only one.

    Raises DataError when there is no such column, or several and none in COLUMNS.
    """
    where = first.where.rsplit(", ", 1)[0]
    option = key.replace("source", "column")
    if column is not None and column not in columns:
        raise DataError(
            f"{where}: no column '{column}' ({option}). Columns: {', '.join(columns)}."
            f"{did_you_mean(column, columns)}"
        )
    known = [name for name in COLUMNS if name in columns] or columns
    if column is None and len(known) > 1 and known is columns:
        raise DataError(
            f"{where}: which column holds the literals? Columns: {', '.join(columns)}. "
            f"Name one as {option}."
        )
    return column or known[0]


def one_per_conversation(records: list[Record]) -> Iterable[Record]:
    """The first record of each conversation, since each line repeats the prompt."""
    return {str(record.fields["conv_id"]): record for record in reversed(records)}.values()


def column_literals(
    records: Iterable[Record], column: str, split: str | None
) -> Iterator[SourceLiteral]:
    """One literal for each record, from one column."""
    for record in records:
        text = clean_text(read_cell(record, column))
        emotion = record.fields.get("emotion") or record.fields.get("context")
        yield SourceLiteral(
            id=literal_id(record, text),
            text=text,
            split=split or split_of_row(record),
            emotion=tidy(emotion) if isinstance(emotion, str) else None,
        )


def literal_id(record: Record, text: str) -> str:
    """The source's own id, else a digest of the text."""
    for key in ("id", "conv_id"):
        value = record.fields.get(key)
        if value is not None and tidy(str(value)):
            return tidy(str(value))
    return digest(text)[:12]


def read_cell(record: Record, column: str) -> str:
    value = record.fields.get(column)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{record.where}, column '{column}': expected a text, found {found}.")
    return value


def clean_text(text: str) -> str:
    """`text` on one line, with EmpatheticDialogues' `_comma_` as a comma."""
    return tidy(text.replace("_comma_", ","))


def split_of_row(record: Record) -> str | None:
    """The split in the row's own column `split`; None without one."""
    value: Any = record.fields.get("split")
    if value in (None, ""):
        return None
    if str(value).lower() not in SPLITS:
        raise DataError(
            f"{record.where}, column 'split': '{value}' is not one of {', '.join(SPLITS)}."
        )
    return SPLITS[str(value).lower()]


def chat_literals(records: list[Record], split: str | None) -> Iterator[SourceLiteral]:
    """The sentences of all messages, without the speakers' names."""
    for record in records:
        dialogue = read_cell(record, "dialogue")
        chat = literal_id(record, dialogue)
        for number, sentence in enumerate(sentences(dialogue), start=1):
            yield SourceLiteral(
                f"{chat}-{number}", sentence, split or split_of_row(record), None, chat
            )


def sentences(dialogue: str) -> Iterator[str]:
    """The sentences of a dialogue, without speakers and placeholders."""
    for line in dialogue.splitlines():
        message = clean_text(PLACEHOLDER.sub(" ", SPEAKER.sub("", line, count=1)))
        yield from (sentence for sentence in SENTENCE_END.split(message) if sentence)
