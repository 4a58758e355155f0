"""The data that `quip plan` counts with: amounts, lengths and the tokens of earlier calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quip.core.jsonl import read_rows
from quip.core.records import Exemplar, GoldPair, LiteralText, Split
from quip.llm import reply_store
from quip.llm.costs import LETTERS_PER_TOKEN
from quip.llm.reply_store import Record
from quip.llm.requests import prompts
from quip.llm.requests.chat import ModelReply, Usage
from quip.runtime.errors import ParamsError


@dataclass(frozen=True)
class Data:
    """Amounts of data: inputs of each split, held-out gold pairs of each kind (there are as many
    for tuning), mean letters of a literal and of an exemplar, and by (model, stage) the mean tokens
    (in, out) of earlier calls."""

    splits: Mapping[str, int]
    gold: Mapping[str, int]
    literal: float
    exemplar: float
    sizes: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)


def measure_data(sections: Mapping[str, Any], prepared_here: bool = True) -> Data:
    """Count the data: the prepared inputs, or the limits of section `prepare` when nothing is
    prepared (before the first run, or for other params)."""
    gold = read_rows("data/raw/gold.jsonl", GoldPair)
    exemplars = read_rows("data/raw/exemplars.jsonl", Exemplar)
    splits, literals = (prepared_data() if prepared_here else None) or raw_data(sections)
    return Data(
        splits,
        Counter(pair.kind for pair in gold if pair.half == "held_out"),
        mean(len(text) for text in literals),
        mean(sum(len(p.text) + 4 for p in e.paraphrases) + len(e.literal) for e in exemplars),
        mean_call_tokens(stored_calls()),
    )


def stored_calls() -> list[Record]:
    with closing(reply_store.open_store()) as store:
        return [record for record in store.records() if record.kind == "call"]


def mean_call_tokens(calls: Iterable[Record]) -> dict[tuple[str, str], tuple[float, float]]:
    """(model, stage) -> mean tokens (in, out) of a call, over replies that report them."""
    found: dict[tuple[str, str], list[Usage]] = {}
    for record in calls:
        usage = ModelReply.model_validate_json(record.payload).usage
        if usage.prompt:
            found.setdefault((record.model, record.by), []).append(usage)
    return {
        key: (mean(u.prompt for u in usages), mean(u.completion for u in usages))
        for key, usages in found.items()
    }


def prepared_data() -> tuple[dict[str, int], list[str]] | None:
    files: dict[Split, Path] = {
        split: Path(f"data/prepared/{split}.jsonl") for split in ("train", "val", "test", "ood")
    }
    if not all(file.is_file() for file in files.values()):
        return None
    rows = {split: read_rows(file, LiteralText) for split, file in files.items()}
    return {split: len(found) for split, found in rows.items()}, texts(rows.values())


def raw_data(sections: Mapping[str, Any]) -> tuple[dict[str, int], list[str]]:
    """(inputs by split, their texts) before `prepare` has run.

    The shipped inputs are cut to the limits. Another source counts as its limits, and its sentences
    as long as the shipped ones. Raises ParamsError when such a source has a part without a limit.
    """
    chosen = sections.get("prepare") or {}
    limit = chosen.get("limit") or {}
    lines = Path("data/raw/literals.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    found = Counter(row["split"] for row in rows)
    found["ood"] = len(Path("data/raw/ood.jsonl").read_text(encoding="utf-8").splitlines())
    texts = [row["text"] for row in rows]
    if (chosen.get("source"), chosen.get("ood_source")) == ("shipped", "shipped"):
        return {split: min(n, limit.get(split) or n) for split, n in found.items()}, texts
    if all(limit.get(split) for split in found):
        return {split: limit[split] for split in found}, texts
    raise ParamsError(
        "params.yaml: prepare.source is not the shipped data and prepare.limit leaves a part open, "
        "so the amount of data is unknown. Run `dvc repro prepare` (it makes no calls), then "
        "`quip plan`."
    )


def texts(groups: Iterable[Sequence[LiteralText]]) -> list[str]:
    return [row.text for rows in groups for row in rows]


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def tokens(letters: float) -> int:
    return round(letters / LETTERS_PER_TOKEN)


def prompt_letters(name: str) -> int:
    return sum(len(text) for _, text in prompts.read(name))
