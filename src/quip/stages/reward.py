"""reward: trains the learned critic on the pairs that params `reward.pairs` names.

The stage prints the agreement with the training pairs; the stage `audit` measures agreement on the
held-out half.

    python -m quip.stages.reward --pairs data/pairs/learn.jsonl --wanted data/roles/reward.json \
        --model models/reward --metrics data/metrics/reward.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from quip.core.jsonl import atomic, read_rows, write_json
from quip.core.params import load
from quip.data.graded_pairs import GradedPair
from quip.runtime import stage


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "pairs", "wanted", "model", "metrics")
    if not json.loads(Path(args.wanted).read_text(encoding="utf-8"))["wanted"]:
        return leave_note(args.model, args.metrics)
    from quip.critics import reward_model
    from quip.training import reward

    params = load("reward", reward.RewardParams)
    pairs = read_rows(args.pairs, GradedPair)
    model = reward.train(pairs, params)
    reward_model.save(model, args.model)
    fitted = round(mean(reward.pair_accuracies(model, pairs)), 4)
    recipe = params.model_dump(exclude={"pairs"})
    write_json(args.metrics, {"pairs": len(pairs), "fitted": fitted, **recipe})
    stage.print_counts("reward", {"pairs": len(pairs)})
    print(f"reward: agrees with {fitted:.1%} of the pairs it was trained on (the audit tells more)")


def leave_note(model: str, metrics: str) -> None:
    print("reward: neither critic.kind nor judge.learned asks for a learned critic.")
    with atomic(Path(model) / "NOT_TRAINED") as handle:
        handle.write("Set critic.kind to 'learned' in params.yaml and run `dvc repro`.\n")
    write_json(metrics, {"pairs": 0})


if __name__ == "__main__":
    stage.run(main)
