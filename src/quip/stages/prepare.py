"""prepare: checks and splits literals of any source into data/prepared/{train,val,test,ood}.jsonl.

    python -m quip.stages.prepare --raw data/raw --out data/prepared --metrics FILE

The splits share no id, no text and no near-duplicate. The output does not depend on the order of
the input: order and limits follow a digest of (seed, id). The near-duplicate check compares every
two texts of different splits (`quip.data.deduplication`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from quip.core import params
from quip.core.jsonl import write_json, write_rows
from quip.core.records import LiteralText
from quip.core.text import count_words, fold
from quip.data.deduplication import drop_duplicates, drop_near_duplicates, limit_rows
from quip.data.drop_counts import Drops
from quip.data.sources import PUBLIC, SourceLiteral, read_source
from quip.data.splits import KEEPERS, Params, assign_split, keeper_order
from quip.runtime import stage
from quip.runtime.errors import DataError


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "raw", "out", "metrics")
    settings = params.load("prepare", Params)
    raw = Path(args.raw)
    source = read_literals(raw, "source", settings.source, settings.column, raw / "literals.jsonl")
    ood = read_literals(
        raw, "ood_source", settings.ood_source, settings.ood_column, raw / "ood.jsonl"
    )
    drops = Drops()
    found = [assign_split(row, settings) for row in source] + as_ood(ood, settings.ood_source)
    splits = prepare(found, settings, drops)
    counts = {split: len(splits[split]) for split in ("train", "val", "test", "ood")}
    stage.print_counts("prepare: kept", counts)
    stage.print_counts("prepare: dropped", drops.counts() or {"nothing": 0}, drops.first)
    check_splits(counts, len(found), drops)
    for split, rows in splits.items():
        write_rows(Path(args.out) / f"{split}.jsonl", map(as_row, rows))
    read_counts = {"source": len(source), "ood_source": len(ood)}
    write_json(args.metrics, {"read": read_counts, "splits": counts, "dropped": drops.counts()})


def read_literals(
    raw: Path, key: str, source: str, column: str | None, shipped: Path
) -> list[SourceLiteral]:
    found = read_source(f"prepare.{key}", source, column, shipped)
    chats = len({row.chat for row in found if row.chat})
    counts = {"literals": len(found)} | ({"chats": chats} if chats else {})
    stage.print_counts(f"prepare: read {source}", counts)
    if source not in ("shipped", *PUBLIC) and raw.resolve() not in Path(source).resolve().parents:
        print(f"prepare: DVC watches {raw}. After a change of {source}: dvc repro -f -s prepare")
    return found


def as_ood(rows: list[SourceLiteral], source: str) -> list[SourceLiteral]:
    """Mark rows as out-of-domain; ids of a foreign source get a prefix, since two files may both
    count from 1."""
    prefix = "" if source == "shipped" else "ood-"
    return [replace(row, split="ood", id=prefix + row.id) for row in rows]


def prepare(
    found: list[SourceLiteral], settings: Params, drops: Drops
) -> dict[str, list[SourceLiteral]]:
    """The splits, each in digest order; dropped rows are counted in `drops`."""
    found = sorted(found, key=lambda row: keeper_order(row, settings.seed))
    fit = [row for row in found if is_fit(row, settings, drops)]
    splits: dict[str, list[SourceLiteral]] = {split: [] for split in KEEPERS}
    for row in drop_duplicates(fit, drops):
        splits[row.split or ""].append(row)
    for place, split in enumerate(KEEPERS):
        others = [row for keeper in KEEPERS[:place] for row in splits[keeper]]
        splits[split] = drop_near_duplicates(splits[split], others, settings.near_duplicate, drops)
    # The cut comes last, so that a higher limit only adds rows.
    limits = settings.limit.model_dump()
    return {split: limit_rows(rows, limits[split], drops) for split, rows in splits.items()}


def is_fit(row: SourceLiteral, settings: Params, drops: Drops) -> bool:
    reason = drop_reason(row.text, settings)
    if reason:
        drops.add(reason, row.text)
    return reason is None


def drop_reason(text: str, settings: Params) -> str | None:
    if not fold(text):
        return "empty"
    if count_words(text) < settings.min_words:
        return "too_short"
    return "too_long" if count_words(text) > settings.max_words else None


def check_splits(counts: dict[str, int], read_rows: int, drops: Drops) -> None:
    for split, count in counts.items():
        if not count:
            raise DataError(
                f"no rows are left for '{split}' of {read_rows:,} read (dropped: {drops}). Look at "
                "prepare.source, ood_source, min_words, max_words and fractions in params.yaml."
            )


def as_row(row: SourceLiteral) -> LiteralText:
    return LiteralText(id=row.id, text=row.text, emotion=row.emotion)


if __name__ == "__main__":
    stage.run(main)
