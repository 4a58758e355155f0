"""baseline: extra training of the warm start without comparisons of two texts.

`ft` imitates the teacher for longer (no feedback). `sd` imitates the critic's favourites among the
student's own texts (self-distillation).

    python -m quip.stages.baseline --arm ft --wanted data/roles/arms/ft.json --start models/sft \
        --pairs data/imitation/pairs.jsonl --preferences data/preferences.jsonl \
        --model models/ft --curve data/curves/ft.csv --run data/runs/ft.json
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quip.core.jsonl import read_rows
from quip.core.params import load
from quip.core.records import Preference, TrainingPair
from quip.runtime import stage
from quip.runtime.errors import ParamsError
from quip.training import distributed
from quip.training.skipped import is_skipped, leave_note


def main(argv: Sequence[str] | None = None) -> None:
    names = ("arm", "wanted", "start", "pairs", "preferences", "model", "curve", "run")
    args = stage.arguments(__doc__, argv, *names)
    if is_skipped(args.wanted):
        return leave_note(args.arm, args.model, args.curve, args.run)
    if distributed.launch_processes("quip.stages.baseline", argv):
        return
    from quip.training.sft import Imitation, imitate

    class Params(Imitation):
        pass

    source = args.pairs if args.arm == "ft" else args.preferences
    imitate(
        f"baseline@{args.arm}",
        load("baseline", Params),
        base=args.start,
        pairs=training_pairs(args.arm, source),
        held_out=[],
        data={"pairs": Path(source)},
        out=Path(args.model),
        curve=Path(args.curve),
        run_file=Path(args.run),
    )


def training_pairs(arm: str, source: str) -> list[TrainingPair]:
    """The teacher's pairs for `ft`, the critic-preferred candidates for `sd`."""
    if arm == "ft":
        return read_rows(source, TrainingPair)
    if arm == "sd":
        return [
            TrainingPair(input=row.input, literal=row.literal, paraphrase=row.chosen)
            for row in read_rows(source, Preference)
        ]
    raise ParamsError(f"baseline: unknown arm '{arm}' (ft, sd).")


if __name__ == "__main__":
    stage.run(main)
