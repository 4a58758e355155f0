"""`quip calls`: list, export and prune the call store; import the calls that stages wrote."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quip.runtime.errors import DataError

if TYPE_CHECKING:
    from quip.llm.reply_store import CallStore, Record

DAY = 86_400.0
RECORDED = Path("data/raw/recorded.jsonl")

app = typer.Typer(no_args_is_help=True, help="The replies that are paid for and kept.")


@contextmanager
def use_store() -> Iterator[CallStore]:
    from quip.llm.reply_store import open_store

    store = open_store()
    try:
        yield store
    finally:
        store.close()


@app.command(name="list")
def newest(n: Annotated[int, typer.Option(min=1, help="How many.")] = 20) -> None:
    """The newest records, one a line."""
    from collections import deque

    with use_store() as store:
        for record in deque(store.records(), maxlen=n):
            typer.echo(record_line(record))


@app.command()
def show(key: Annotated[str, typer.Argument(help="A key, or how it begins.")]) -> None:
    """One record as JSON."""
    with use_store() as store:
        found = [record for record in store.records() if record.key.startswith(key)]
    if len({record.key for record in found}) != 1:
        raise DataError(
            f"{len(found)} records have a key that begins with '{key}'; `quip calls list` shows "
            "keys."
        )
    for record in found:
        typer.echo(json.dumps(document(record), ensure_ascii=False, indent=2))


@app.command()
def count() -> None:
    """Replies and money by model and stage, and the size on disk."""
    with use_store() as store:
        typer.echo(table(store.records()))
        size = store.path.stat().st_size
        each = f", {size / len(store):,.0f} bytes a reply" if len(store) else ""
        typer.echo(
            f"{len(store):,} replies, {size:,} bytes{each}; {store.damaged:,} damaged records, "
            f"{len(store.batches):,} open batches, {store.money:.4f} spent"
        )


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="A JSONL file to write.")] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(help="Record the replies of this stage (teacher, critique, judge@ARM, ...)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="With --stage: the recording to write.")] = RECORDED,
    model: Annotated[
        str | None, typer.Option(help="With --stage: only comparisons by this model.")
    ] = None,
) -> None:
    """Every record into FILE, or what a stage got as a recording.

    A recording is a file that plays the endpoint in later runs, without a key: `replies: FILE` in
    place of `base_url` (docs/endpoints.md). --stage may stand several times.
    """
    if (file is None) == (not stage):
        raise DataError("export: give a FILE for every record, or --stage for a recording.")
    if file is not None:
        export_records(file)
        return
    from quip.cli import recordings

    typer.echo(recordings.export(stage or [], out, model))


def export_records(file: Path) -> None:
    """One JSON object a line."""
    from quip.core.jsonl import atomic

    with use_store() as store, atomic(file) as handle:
        for record in store.records():
            handle.write(json.dumps(document(record), ensure_ascii=False) + "\n")


@app.command()
def prune(
    model: Annotated[str | None, typer.Option(help="Only replies of this model.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only those this stage asked for.")] = None,
    older: Annotated[float | None, typer.Option(min=0, help="Only those of DAYS ago.")] = None,
) -> None:
    """Drop replies; what they cost stays counted. Damaged and replaced records go, too."""
    if (model, stage, older) == (None, None, None):
        raise DataError("prune: name the replies by --model, --stage or --older (all must match).")
    before = time.time() - (older or 0.0) * DAY

    def is_pruned(record: Record) -> bool:
        matches = model in (None, record.model) and stage in (None, record.by)
        return matches and record.kind == "call" and record.at <= before

    with use_store() as store:
        had = len(store)

        def kept_records(records: list[Record]) -> list[Record]:
            kept = [record for record in records if not is_pruned(record)]
            return [*kept, *costs(records, kept, store.money)]

        store.rewrite(kept_records)
    with use_store() as store:
        typer.echo(f"{had - len(store):,} replies dropped, {len(store):,} kept")


@app.command(name="import")
def import_outputs() -> None:
    """Import the replies that stages wrote to data/calls, from there and from DVC's cache."""
    from quip.llm.call_outputs import FOLDER, import_calls

    with use_store() as store:
        found = import_calls(store)
    if not found:
        raise DataError(f"no calls under {FOLDER} nor in DVC's cache; `dvc pull` brings them.")
    for stage, count in found.items():
        typer.echo(f"{stage}: {count:,} replies imported")


def costs(records: Sequence[Record], kept: Sequence[Record], money: float) -> list[Record]:
    """The money of dropped records, as one record a model and stage."""
    from quip.llm.reply_store import Record

    gone = defaultdict[tuple[str, str], float](float)
    for record in set(records) - set(kept):
        gone[record.model, record.by] += record.money
    gone["", "replaced"] += money - sum(record.money for record in records)
    return [
        Record.now("spent", "0" * 64, model, by, spent, "")
        for (model, by), spent in gone.items()
        if spent > 1e-9
    ]


def document(record: Record) -> dict[str, Any]:
    found = {name: value for name, value in vars(record).items() if name != "payload"}
    if record.kind == "call":
        return {**found, "reply": json.loads(record.payload)}
    return {**found, "payload": record.payload}


def record_line(record: Record) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.at))
    text = document(record).get("reply", {}).get("text") or record.payload
    return f"{record.key[:12]}  {when}  {record.kind:<6}{record.model}  {record.by}  {text[:60]!r}"


def table(records: Iterable[Record]) -> str:
    """One line a model and stage: replies, and the money of all its records."""
    replies, money = Counter[tuple[str, str]](), defaultdict[tuple[str, str], float](float)
    for record in records:
        replies[record.model, record.by] += record.kind == "call"
        money[record.model, record.by] += record.money
    lines = [f"{'replies':>9}{'money':>12}  model, stage"]
    lines += [
        f"{replies[key]:>9,}{money[key]:>12,.4f}  {', '.join(filter(None, key))}"
        for key in sorted(money)
    ]
    return "\n".join(lines)
