"""Where literals come from: the shipped files, public data sets, files of the user's own.

A source is read as published: EmpatheticDialogues gives one literal a conversation (`prompt`),
chats in the layout of SAMSum give the sentences of their messages, any other table the texts of
one column. Splits are kept where the source has them.
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

from quip.core.params import nearest
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
PLACEHOLDER = re.compile(r"<\w+>")  # <file_photo> and its like in chats
SPEAKER = re.compile(r"[^:\n]{1,40}:\s*")
ABBREVIATIONS = r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\b[ap]\.m\.)"
SENTENCE_END = re.compile(rf"(?<=[.!?…]){ABBREVIATIONS}\s+")


@dataclass(frozen=True)
class Found:
    """One literal of a source. Sentences of one chat carry its id: they belong into one split."""

    id: str
    text: str
    split: str | None = None
    emotion: str | None = None
    chat: str = ""


@dataclass(frozen=True)
class Public:
    """A public data set: its name on the hub, and how to get it by hand."""

    hub: str
    revision: str | None
    by_hand: str


PUBLIC = {
    "empatheticdialogues": Public(
        "facebook/empathetic_dialogues",
        "refs/convert/parquet",  # the main branch is a loading script, which is never run
        "empatheticdialogues.tar.gz (linked from github.com/facebookresearch/EmpatheticDialogues)",
    ),
    "samsum": Public(
        "knkarthick/samsum",  # the original name is gone from the hub
        None,
        "corpus.7z (ancillary file of arXiv 1911.12237) and unpack it into a folder",
    ),
}


def read_source(key: str, source: str, column: str | None, shipped: Path) -> list[Found]:
    """The literals of `source`: "shipped", a name in PUBLIC, or a path.

    `key` is the params key that named it, for messages. Raises DataError when it cannot be read.
    """
    if source == "shipped":
        tables = from_files(shipped)
    elif source in PUBLIC:
        tables = from_hub(key, source)
    else:
        tables = from_files(located(key, source))
    return [found for split, records in tables for found in literals(key, records, column, split)]


def located(key: str, source: str) -> Path:
    """`source` as a path: from the working folder, or from the main checkout's root."""
    for path in (Path(source), root() / source):
        if path.exists():
            return path
    known = ["shipped", *PUBLIC]
    raise DataError(
        f"{key}: '{source}' is no file or folder, nor one of {', '.join(known)}."
        f"{nearest(source, known)}"
    )


Tables = Iterator[tuple[str | None, list[Record]]]


def from_files(path: Path) -> Tables:
    """One file, or the published parts (train, valid, test) of a folder or a tar.gz."""
    if path.is_dir():
        parts = [(str(file), file.read_bytes()) for file in sorted(path.iterdir()) if part(file)]
    elif path.name.endswith((".tar.gz", ".tgz", ".tar")):
        parts = list(unpacked(path))
    elif path.is_file():
        yield None, read_table(str(path), path.read_bytes())
        return
    else:
        raise DataError(f"{path}: no such file.")
    if not parts:
        raise DataError(f"{path}: holds no train.csv, valid.csv or test.csv (or .json, .jsonl).")
    for name, data in parts:
        yield part(name), read_table(name, data)


def part(name: str | Path) -> str | None:
    """The split that a file is, by its name; None for any other file."""
    path = PurePosixPath(str(name))
    return SPLITS.get(path.stem.lower()) if path.suffix.lower() in READERS else None


def unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """The parts in a tar archive, read in memory: nothing of it is written anywhere."""
    try:
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                file = archive.extractfile(member) if part(member.name) else None
                if file:
                    yield f"{path}:{member.name}", file.read()
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise DataError(f"{path}: not a readable tar archive ({reason}). Load it again.") from None


def from_hub(key: str, source: str) -> Tables:
    """A public data set through `datasets`. DataError says how to get it by hand."""
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
) -> Iterator[Found]:
    columns = list(records[0].fields)
    if column in (None, "dialogue") and "dialogue" in columns:
        return from_chats(records, split)
    if column in (None, "prompt") and {"conv_id", "prompt"} <= set(columns):
        return from_column(one_per_conversation(records), "prompt", split)
    return from_column(records, chosen(key, records[0], columns, column), split)


def chosen(key: str, first: Record, columns: list[str], column: str | None) -> str:
    """The column to read: the one asked for, or the one that can only be meant."""
    where = first.where.rsplit(", ", 1)[0]
    option = key.replace("source", "column")
    if column is not None and column not in columns:
        raise DataError(
            f"{where}: no column '{column}' ({option}). Columns: {', '.join(columns)}."
            f"{nearest(column, columns)}"
        )
    known = [name for name in COLUMNS if name in columns] or columns
    if column is None and len(known) > 1 and known is columns:
        raise DataError(
            f"{where}: which column holds the literals? Columns: {', '.join(columns)}. "
            f"Name one as {option}."
        )
    return column or known[0]


def one_per_conversation(records: list[Record]) -> Iterable[Record]:
    """EmpatheticDialogues repeats the prompt on each line of a conversation."""
    return {str(record.fields["conv_id"]): record for record in reversed(records)}.values()


def from_column(records: Iterable[Record], column: str, split: str | None) -> Iterator[Found]:
    for record in records:
        text = plain(cell(record, column))
        emotion = record.fields.get("emotion") or record.fields.get("context")
        yield Found(
            id=identity(record, text),
            text=text,
            split=split or split_of(record),
            emotion=tidy(emotion) if isinstance(emotion, str) else None,
        )


def identity(record: Record, text: str) -> str:
    """The source's own id, or else a digest of the text."""
    for key in ("id", "conv_id"):
        value = record.fields.get(key)
        if value is not None and tidy(str(value)):
            return tidy(str(value))
    return digest(text)[:12]


def cell(record: Record, column: str) -> str:
    value = record.fields.get(column)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f"{record.where}, column '{column}': expected a text, found {found}.")
    return value


def plain(text: str) -> str:
    return tidy(text.replace("_comma_", ","))


def split_of(record: Record) -> str | None:
    """The split a row names for itself, if it does."""
    value: Any = record.fields.get("split")
    if value in (None, ""):
        return None
    if str(value).lower() not in SPLITS:
        raise DataError(
            f"{record.where}, column 'split': '{value}' is not one of {', '.join(SPLITS)}."
        )
    return SPLITS[str(value).lower()]


def from_chats(records: list[Record], split: str | None) -> Iterator[Found]:
    """The sentences of all messages, without the names of who wrote them."""
    for record in records:
        dialogue = cell(record, "dialogue")
        chat = identity(record, dialogue)
        for number, sentence in enumerate(sentences(dialogue), start=1):
            yield Found(f"{chat}-{number}", sentence, split or split_of(record), None, chat)


def sentences(dialogue: str) -> Iterator[str]:
    for line in dialogue.splitlines():
        message = plain(PLACEHOLDER.sub(" ", SPEAKER.sub("", line, count=1)))
        yield from (sentence for sentence in SENTENCE_END.split(message) if sentence)
