"""align: trains the student on the critic's feedback, one arm a run: `brio`, `dpo` or `brio_dpo`.

dpo       DPO on the critic's pairs (Rafailov et al. 2023, equation 7): by TRL for a causal student,
          by quip's own loop for an encoder-decoder and for a loss that TRL lacks
brio      BRIO on the critic's rankings, with imitation of the teacher (Liu et al. 2022)
brio_dpo  DPO whose start and reference model is a student trained by BRIO on the teacher's own
          paraphrases (this stage with `--arm brio` on the teacher's rankings)

`--feedback`: the critic's rankings for BRIO, its pairs for DPO.
`--rounds`: the number of rounds of feedback; each round takes its share of align.epochs.
docs/training.md explains the objectives, their settings and the rounds.

    python -m quip.stages.align --arm dpo --wanted data/roles/arms/dpo.json --start models/sft \
        --reference models/sft --feedback data/preferences.jsonl \
        --pairs data/imitation/pairs.jsonl --model models/dpo --curve data/curves/dpo.csv \
        --run data/runs/dpo.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.core.params import load
from quip.runtime import stage
from quip.runtime.errors import ParamsError
from quip.training import distributed
from quip.training.skipped import is_skipped, leave_note


def main(argv: Sequence[str] | None = None) -> None:
    names = ("arm", "wanted", "start", "feedback", "pairs", "model", "curve", "run")
    args = stage.arguments(__doc__, argv, *names, reference="", rounds="1")
    if is_skipped(args.wanted):
        return leave_note(Path(args.wanted).stem, args.model, args.curve, args.run)
    if distributed.launch_processes("quip.stages.align", argv):
        return
    if args.arm not in ("brio", "dpo", "brio_dpo"):
        raise ParamsError(f"align: unknown arm '{args.arm}' (brio, dpo, brio_dpo).")
    from quip.training import trainer
    from quip.training.brio import brio_recipe
    from quip.training.dpo import dpo_recipe

    class Params(trainer.Training):
        pass

    params = load("align", Params)
    params = params.model_copy(update={"epochs": params.epochs / int(args.rounds)})
    recipe = brio_recipe if args.arm == "brio" else dpo_recipe
    fit, data, rows, settings = recipe(args, params)
    trainer.train(
        f"align@{name_of(Path(args.model))}",
        fit,
        params,
        args.start,
        {name: Path(path) for name, path in data.items()},
        rows,
        Path(args.model),
        Path(args.curve),
        Path(args.run),
        {**settings, "base": args.start},
    )


def name_of(model: Path) -> str:
    """The name of a training, unique by its model folder: models/dpo -> dpo, models/rounds/dpo-1 ->
    rounds-dpo-1."""
    return "-".join(model.parts[1:] if model.parts[0] == "models" else model.parts[-1:])


if __name__ == "__main__":
    stage.run(main)
