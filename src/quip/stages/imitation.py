"""imitation: parses the teacher's raw replies into training pairs and references.

    python -m quip.stages.imitation --replies FILE --out data/imitation --metrics FILE

Training inputs give pairs.jsonl, at most `per_input` paraphrases each; val, test and ood inputs
give references.jsonl with all that survive. Every dropped paraphrase is counted by its reason:
parsed = kept_pairs + reference_paraphrases + all of `dropped`. The paper discards refusals
and safety warnings only (section "Teacher"); the other reasons are for weaker teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from quip.core import params
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.records import Exemplar, Reference, Reply, TrainingPair
from quip.data.drop_counts import Drops
from quip.data.training_pairs import (
    ImitationParams,
    InputTexts,
    add_reply,
    exemplar_folds,
    make_references,
    training_pairs,
)
from quip.runtime import stage
from quip.runtime.errors import DataError

Params = ImitationParams


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "replies", "out", "metrics", exemplars="")
    settings = params.load("imitation", Params)
    replies = read_rows(args.replies, Reply)
    echoes = exemplar_folds(read_rows(args.exemplars, Exemplar)) if args.exemplars else frozenset()
    drops, unparsed = Drops(), Drops()
    inputs: dict[str, InputTexts] = {}
    parsed = 0
    for reply in replies:
        texts = inputs.setdefault(reply.input, InputTexts(reply))
        parsed += add_reply(reply, texts, settings, echoes, drops, unparsed)
    pairs = training_pairs(inputs.values(), settings.per_input, drops)
    references = make_references(inputs.values())
    metrics = count_metrics(
        len(replies), parsed, inputs.values(), pairs, references, drops, unparsed
    )
    print_summary(metrics, drops, unparsed)
    check_drops(list(inputs.values()), pairs, drops, settings)
    write_rows(Path(args.out) / "pairs.jsonl", pairs)
    write_rows(Path(args.out) / "references.jsonl", references)
    write_json(args.metrics, metrics)


def count_metrics(
    asked: int,
    parsed: int,
    inputs: Iterable[InputTexts],
    pairs: list[TrainingPair],
    references: list[Reference],
    drops: Drops,
    unparsed: Drops,
) -> dict[str, Any]:
    """`asked` and `unparsed` count replies; `parsed`, `kept_pairs`, `reference_paraphrases` and
    `dropped` paraphrases; `references`, `inputs_without_any` and `no_reference` inputs."""
    without = [texts.reply.split for texts in inputs if not texts.kept]
    return {
        "asked": asked,
        "unparsed": sum(unparsed.counts().values()),
        "parsed": parsed,
        "kept_pairs": len(pairs),
        "references": len(references),
        "reference_paraphrases": sum(len(row.paraphrases) for row in references),
        "inputs_without_any": len(without),
        "no_reference": sum(split != "train" for split in without),
        "dropped": drops.counts(),
    }


def print_summary(metrics: dict[str, Any], drops: Drops, unparsed: Drops) -> None:
    counts = {key: value for key, value in metrics.items() if isinstance(value, int)}
    stage.print_counts("imitation", counts, unparsed.first)
    stage.print_counts("imitation: dropped", drops.counts() or {"nothing": 0}, drops.first)


def check_drops(
    inputs: list[InputTexts], pairs: list[TrainingPair], drops: Drops, settings: Params
) -> None:
    lost = [texts.reply for texts in inputs if not texts.kept]
    share = len(lost) / len(inputs)
    advice = "Look at prompts/teacher.txt and at the section teacher of params.yaml."
    if share > settings.max_drop_share:
        raise DataError(
            f"{len(lost)} of {len(inputs)} inputs got no usable paraphrase ({share:.1%}, limit "
            f"{settings.max_drop_share:.1%}). Dropped paraphrases: {drops}. First: input "
            f"{lost[0].input}: {lost[0].text[:120]!r}. {advice}"
        )
    if not pairs:
        raise DataError(f"no training pair is left (dropped: {drops}). {advice}")


if __name__ == "__main__":
    stage.run(main)
