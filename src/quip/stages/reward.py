"""reward: grow the learned critic from the tuning half of the gold pairs.

Its agreement on the pairs it was trained on is printed; what it is worth on others is for the stage
`audit`, on the held-out half.

    python -m quip.stages.reward --gold data/raw/gold.jsonl --wanted data/roles/reward.json \
        --model models/reward --metrics data/metrics/reward.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from quip import stage
from quip.errors import DataError
from quip.params import load
from quip.records import GoldPair, atomic, read_rows, write_json


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "gold", "wanted", "model", "metrics")
    if not json.loads(Path(args.wanted).read_text(encoding="utf-8"))["wanted"]:
        return leave_note(args.model, args.metrics)
    from quip import reward

    params = load("reward", reward.RewardParams)
    pairs = [pair for pair in read_rows(args.gold, GoldPair) if pair.half == "tune"]
    if not pairs:
        raise DataError("no gold pair is marked 'tune': there is nothing to learn from.")
    model = reward.train(pairs, params)
    reward.save(model, args.model)
    fitted = agreement(reward.rewards(model, texts(pairs)))
    write_json(args.metrics, {"pairs": len(pairs), "fitted": fitted, **params.model_dump()})
    stage.say("reward", {"pairs": len(pairs)})
    print(f"reward: agrees with {fitted:.1%} of the pairs it was trained on (the audit tells more)")


def texts(pairs: Sequence[GoldPair]) -> list[tuple[str, str]]:
    """(literal, text) of the better and the worse text of each pair, one after the other."""
    return [(pair.literal, text) for pair in pairs for text in (pair.better, pair.worse)]


def agreement(values: Sequence[float]) -> float:
    """Share of pairs whose better text has the higher reward."""
    right = [better > worse for better, worse in zip(values[::2], values[1::2], strict=True)]
    return round(sum(right) / len(right), 4)


def leave_note(model: str, metrics: str) -> None:
    print("reward: neither critic.kind nor judge.learned asks for a learned critic.")
    with atomic(Path(model) / "NOT_TRAINED") as handle:
        handle.write("Set critic.kind to 'learned' in params.yaml and run `dvc repro`.\n")
    write_json(metrics, {"pairs": 0})


if __name__ == "__main__":
    stage.run(main)
