"""prepare: literals of any source -> data/prepared/{train,val,test,ood}.jsonl, checked.

    python -m quip.stages.prepare --raw data/raw --out data/prepared --metrics FILE

The splits share no id, no text and no near-duplicate. What comes out does not depend on the order
of what goes in: order and limits follow a digest of (seed, id). The near-duplicate check compares
every two texts of different splits, by their letters first and only then in order (`nearest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from quip import params, stage
from quip.drops import Drops
from quip.errors import DataError
from quip.params import Section
from quip.records import LiteralText, write_json, write_rows
from quip.sources import PUBLIC, Found, read_source
from quip.texts import digest, fold, words

# Which split keeps a text that several hold: an evaluation must never lose to training data.
KEEPERS = ("test", "ood", "val", "train")
CHUNK = 4000
PIECE = 250
"""Rows that are put to `Letters` at once, and those of like length that are compared at once."""
LETTERS = 32
"""Classes of characters, by code point modulo this: a to z have one each."""


class Limit(Section):
    train: int | None = Field(ge=1)
    val: int | None = Field(ge=1)
    test: int | None = Field(ge=1)
    ood: int | None = Field(ge=1)


class Fractions(Section):
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)

    @model_validator(mode="after")
    def leave_room_to_train(self) -> Fractions:
        if self.val + self.test >= 1:
            raise ValueError("val and test together must stay below 1")
        return self


class Params(Section):
    source: str
    ood_source: str
    column: str | None
    ood_column: str | None
    limit: Limit
    min_words: int = Field(ge=1)
    max_words: int = Field(ge=1)
    near_duplicate: float = Field(gt=0, le=100)
    fractions: Fractions
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "raw", "out", "metrics")
    settings = params.load("prepare", Params)
    raw = Path(args.raw)
    source = read(raw, "source", settings.source, settings.column, raw / "literals.jsonl")
    ood = read(raw, "ood_source", settings.ood_source, settings.ood_column, raw / "ood.jsonl")
    drops = Drops()
    found = [assign(row, settings) for row in source] + as_ood(ood, settings.ood_source)
    splits = prepare(found, settings, drops)
    counts = {split: len(splits[split]) for split in ("train", "val", "test", "ood")}
    stage.say("prepare: kept", counts)
    stage.say("prepare: dropped", drops.counts() or {"nothing": 0}, drops.first)
    refuse_empty(counts, len(found), drops)
    for split, rows in splits.items():
        write_rows(Path(args.out) / f"{split}.jsonl", map(as_row, rows))
    read_counts = {"source": len(source), "ood_source": len(ood)}
    write_json(args.metrics, {"read": read_counts, "splits": counts, "dropped": drops.counts()})


def read(raw: Path, key: str, source: str, column: str | None, shipped: Path) -> list[Found]:
    found = read_source(f"prepare.{key}", source, column, shipped)
    chats = len({row.chat for row in found if row.chat})
    counts = {"literals": len(found)} | ({"chats": chats} if chats else {})
    stage.say(f"prepare: read {source}", counts)
    if source not in ("shipped", *PUBLIC) and raw.resolve() not in Path(source).resolve().parents:
        print(f"prepare: DVC watches {raw}. After a change of {source}: dvc repro -f -s prepare")
    return found


def assign(row: Found, settings: Params) -> Found:
    """Give a row without a published split one, by digest of (seed, id); chats stay whole."""
    if row.split:
        return row
    share = int(digest(settings.seed, "split", row.chat or row.id)[:12], 16) / 16**12
    fractions = settings.fractions
    if share < fractions.test:
        return replace(row, split="test")
    return replace(row, split="val" if share < fractions.test + fractions.val else "train")


def as_ood(rows: list[Found], source: str) -> list[Found]:
    """Ids of a foreign source get a prefix: two files may both count from 1."""
    prefix = "" if source == "shipped" else "ood-"
    return [replace(row, split="ood", id=prefix + row.id) for row in rows]


def prepare(found: list[Found], settings: Params, drops: Drops) -> dict[str, list[Found]]:
    """The splits, each in digest order; what is left out is counted in `drops`."""
    found = sorted(found, key=lambda row: order(row, settings.seed))
    fit = [row for row in found if fits(row, settings, drops)]
    splits: dict[str, list[Found]] = {split: [] for split in KEEPERS}
    for row in unique(fit, drops):
        splits[row.split or ""].append(row)
    for place, split in enumerate(KEEPERS):
        others = [row for keeper in KEEPERS[:place] for row in splits[keeper]]
        splits[split] = far(splits[split], others, settings.near_duplicate, drops)
    # Cut last: a higher limit then only adds rows, it never changes the ones before.
    limits = settings.limit.model_dump()
    return {split: cut(rows, limits[split], drops) for split, rows in splits.items()}


def order(row: Found, seed: int) -> tuple[int, str, str]:
    """Best keeper first, then shuffled by digest; the text only decides between equal ids."""
    return KEEPERS.index(row.split or ""), digest(seed, row.id), row.text


def fits(row: Found, settings: Params, drops: Drops) -> bool:
    reason = unfit(row.text, settings)
    if reason:
        drops.add(reason, row.text)
    return reason is None


def unfit(text: str, settings: Params) -> str | None:
    if not fold(text):
        return "empty"
    if words(text) < settings.min_words:
        return "too_short"
    return "too_long" if words(text) > settings.max_words else None


def unique(rows: list[Found], drops: Drops) -> list[Found]:
    """The first row of each folded text and of each id; `rows` come best keeper first."""
    texts: set[str] = set()
    ids: set[str] = set()
    kept = []
    for row in rows:
        if fold(row.text) in texts:
            drops.add("duplicate", row.text)
        elif row.id in ids:
            drops.add("duplicate_id", f"{row.id}: {row.text}")
        else:
            kept.append(row)
            texts.add(fold(row.text))
            ids.add(row.id)
    return kept


def far(rows: list[Found], others: list[Found], cutoff: float, drops: Drops) -> list[Found]:
    """The rows whose folded text is at most `cutoff` similar (0 to 100) to each of `others`."""
    kept = []
    against = Letters([fold(row.text) for row in others])
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        found = against.highest([fold(row.text) for row in chunk], cutoff)
        for row, near in zip(chunk, found, strict=True):
            if near > cutoff:
                drops.add("near_duplicate", row.text)
            else:
                kept.append(row)
    return kept


class Letters:
    """Texts to compare others with. The rapidfuzz ratio of texts of m and n letters is 200 l / (m +
    n) with l their longest common subsequence, which is no longer than the shorter of them and than
    the letters they share in any order. So only texts of like length are looked at; the letters are
    counted for all pairs of these at once, by a matrix product of unary counts; and the few pairs
    that share enough are compared. Exact: no pair that is alike is left out."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = sorted(texts, key=len)
        self.lengths = lengths_of(self.texts)
        counts = letters(self.texts)
        self.most = int(counts.max(initial=0))
        every = unary(counts, self.most)
        self.seen = every.any(axis=0)
        self.unary = every[:, self.seen].astype(np.float32)

    def highest(self, texts: list[str], cutoff: float) -> list[float]:
        """For each text its highest ratio to any of these; below `cutoff` it counts 0."""
        found = np.zeros(len(texts))
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), PIECE):
            places = by_length[start : start + PIECE]
            found[places] = self.highest_of_like_length([texts[i] for i in places], cutoff)
        return found.tolist()

    def highest_of_like_length(self, texts: list[str], cutoff: float) -> np.ndarray:
        """As `highest`; `texts` come shortest first."""
        from rapidfuzz import fuzz, process

        found = np.zeros(len(texts))
        least = cutoff / (200 - cutoff)
        low = int(np.searchsorted(self.lengths, len(texts[0]) * least - 0.01))
        high = int(np.searchsorted(self.lengths, len(texts[-1]) / least + 0.01))
        if low >= high:
            return found
        mine = unary(letters(texts), self.most)[:, self.seen].astype(np.float32)
        spare = mine @ self.unary[low:high].T
        spare -= np.float32(cutoff / 200) * lengths_of(texts)[:, None]
        spare -= np.float32(cutoff / 200) * self.lengths[low:high]
        rows, columns = np.nonzero(spare >= -0.01)
        left, right = [texts[i] for i in rows], [self.texts[low + j] for j in columns]
        scores = process.cpdist(left, right, scorer=fuzz.ratio, score_cutoff=cutoff, workers=-1)
        np.maximum.at(found, rows, scores)
        return found


def lengths_of(texts: list[str]) -> np.ndarray:
    return np.array([len(text) for text in texts], dtype=np.float32)


def letters(texts: list[str]) -> np.ndarray:
    """How often each class of characters stands in each text, (n, LETTERS)."""
    codes = (np.frombuffer(text.encode("utf-32-le"), np.uint32) % LETTERS for text in texts)
    found = [np.bincount(code, minlength=LETTERS) for code in codes]
    return np.array(found, dtype=np.int64).reshape(-1, LETTERS)


def unary(counts: np.ndarray, most: int) -> np.ndarray:
    """(n, LETTERS * most), true as often as a class occurs, so that the product of two rows is the
    number of characters two texts share, of at most `most` each."""
    return (counts[:, :, None] > np.arange(most)).reshape(len(counts), LETTERS * most)


def cut(rows: list[Found], limit: int | None, drops: Drops) -> list[Found]:
    for row in rows[limit:] if limit else []:
        drops.add("over_limit", row.text)
    return rows[:limit]


def refuse_empty(counts: dict[str, int], read_rows: int, drops: Drops) -> None:
    for split, count in counts.items():
        if not count:
            raise DataError(
                f"no rows are left for '{split}' of {read_rows:,} read (dropped: {drops}). Look at "
                "prepare.source, ood_source, min_words, max_words and fractions in params.yaml."
            )


def as_row(row: Found) -> LiteralText:
    return LiteralText(id=row.id, text=row.text, emotion=row.emotion)


if __name__ == "__main__":
    stage.run(main)
