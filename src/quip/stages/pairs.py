"""pairs: splits graded pairs into training pairs of the learned critic and pairs of the audit.

Params `reward.pairs` and `audit.extra` name files of `graded`. Of a file with halves (our gold
pairs, votes) the critic trains on the tuning half and the audit measures on the held-out half. An
audit pair is dropped and counted when its literal or one of its texts is among the training pairs.

    python -m quip.stages.pairs --graded data/graded --learn data/pairs/learn.jsonl \
        --extra data/pairs/extra.json --metrics data/metrics/pairs.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import did_you_mean, read_params
from quip.data.graded_pairs import GradedPair, evaluation_pairs, tuning_pairs
from quip.runtime import stage
from quip.runtime.errors import DataError, ParamsError


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "graded", "learn", "extra", "metrics")
    params = read_params()
    learn = [
        pair
        for name in listed_names(params, "reward", "pairs")
        for pair in tuning_pairs(read_rows(Path(args.graded, f"{name}.jsonl"), GradedPair))
    ]
    if not learn:
        raise DataError(
            "pairs: every pair of reward.pairs is marked 'held_out', so none is left to train on. "
            "Name another file in reward.pairs."
        )
    known = pair_texts(learn)
    extra: dict[str, list[dict[str, Any]]] = {}
    counts: dict[str, Any] = {"learn": len(learn), "extra": {}}
    for name in listed_names(params, "audit", "extra"):
        found = evaluation_pairs(read_rows(Path(args.graded, f"{name}.jsonl"), GradedPair))
        kept = [pair for pair in found if not {pair.literal, pair.better, pair.worse} & known]
        if not kept:
            raise DataError(
                f"pairs: every pair of '{name}' shares a text with the training pairs. Remove it "
                "from audit.extra or from reward.pairs."
            )
        extra[name] = [pair.model_dump() for pair in kept]
        counts["extra"][name] = {"pairs": len(kept), "learned_from": len(found) - len(kept)}
        print(f"pairs: {name}: {len(kept):,} to measure on, {len(found) - len(kept)} left out")
    write_rows(args.learn, learn)
    write_json(args.extra, extra)
    write_json(args.metrics, counts)
    stage.print_counts("pairs", {"learn": len(learn), "extra": sum(map(len, extra.values()))})


def listed_names(params: Mapping[str, Any], section: str, key: str) -> list[str]:
    """The names listed by `section.key`. Raises ParamsError when `graded` has no such file."""
    found, known = (params.get(section) or {}).get(key), params.get("graded") or {}
    if not isinstance(found, list):
        raise ParamsError(f"params.yaml: key '{section}.{key}' must be a list of names.")
    for name in found:
        if name not in known:
            raise ParamsError(
                f"params.yaml: '{name}' in '{section}.{key}' is no file of 'graded'. Known: "
                f"{', '.join(known)}.{did_you_mean(str(name), known)}"
            )
    return [str(name) for name in found]


def pair_texts(pairs: Sequence[GradedPair]) -> set[str]:
    """All literals and texts of `pairs`."""
    return {text for p in pairs for text in (p.literal, p.better, p.worse)} - {""}


if __name__ == "__main__":
    stage.run(main)
