"""imitation: parses the teacher's raw replies into training pairs and references.

    python -m quip.stages.imitation --replies FILE --out data/imitation --metrics FILE

Training inputs give pairs.jsonl, at most `per_input` paraphrases each; val, test and ood inputs
give references.jsonl with all that survive. Every dropped paraphrase is counted by its reason:
parsed = kept_pairs + reference_paraphrases + all of `dropped`. The paper discards refusals
and safety warnings only (section "Teacher"); the other reasons are for weaker teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field
from rapidfuzz import fuzz

from quip.core import params
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import Section
from quip.core.records import Exemplar, Reference, Reply, TrainingPair
from quip.core.text import count_words, fold
from quip.data.drop_counts import Drops
from quip.data.language import is_english
from quip.data.refusals import echoes_instructions, refuses, warns
from quip.data.reply_parsing import parse_reply
from quip.runtime import stage
from quip.runtime.errors import DataError

OPENING = 200  # characters at the start of a reply that are searched for a refusal


class Params(Section):
    per_input: int = Field(ge=1)
    min_words: int = Field(ge=1)
    max_words: int = Field(ge=1)
    copy_ratio: float = Field(gt=0, le=100)
    max_drop_share: float = Field(ge=0, le=1)


@dataclass
class InputTexts:
    """The teacher's kept paraphrases of one input. `seen` holds the folds of `kept`."""

    reply: Reply
    kept: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


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


def exemplar_folds(exemplars: Iterable[Exemplar]) -> frozenset[str]:
    """The folded texts of the worked examples in the teacher's prompt."""
    return frozenset(
        fold(text)
        for row in exemplars
        for text in [row.literal, *(p.text for p in row.paraphrases)]
    )


def add_reply(
    reply: Reply,
    texts: InputTexts,
    settings: Params,
    echoes: frozenset[str],
    drops: Drops,
    unparsed: Drops,
) -> int:
    """Add the usable paraphrases of `reply` to `texts` and count the others by reason; returns the
    number parsed."""
    found = parse_reply(reply.text, reply.finish_reason)
    whole = parse_reply(reply.text, "stop")
    if not whole:
        unparsed.add("unparsed", reply.text or "(empty reply)")
    if len(whole) > len(found):
        drops.add("truncated", whole[-1], len(whole) - len(found))
    refused = refuses(reply.text[:OPENING], reply.literal)
    for text in found:
        fault = "refusal" if refused else None
        fault = fault or drop_reason(text, reply.literal, texts.seen, settings, echoes)
        if fault:
            drops.add(fault, text)
        else:
            texts.kept.append(text)
            texts.seen.add(fold(text))
    return len(whole)


def drop_reason(
    paraphrase: str,
    literal: str,
    seen: set[str],
    settings: Params,
    echoes: frozenset[str] = frozenset(),
) -> str | None:
    """The reason to drop `paraphrase`, or None. `seen` and `echoes` are folded texts."""
    folded = fold(paraphrase)
    if refuses(paraphrase, literal):
        return "refusal"
    if warns(paraphrase, literal):
        return "safety_warning"
    if fuzz.ratio(folded, fold(literal)) >= settings.copy_ratio:
        return "copy"
    if folded in echoes or echoes_instructions(paraphrase, literal):
        return "prompt_echo"
    if folded in seen:
        return "duplicate"
    if not is_english(paraphrase):
        return "wrong_language"
    if count_words(paraphrase) < settings.min_words:
        return "too_short"
    return "too_long" if count_words(paraphrase) > settings.max_words else None


def training_pairs(
    inputs: Iterable[InputTexts], per_input: int, drops: Drops
) -> list[TrainingPair]:
    """At most `per_input` pairs of each training input, in the teacher's order."""
    pairs = []
    for texts in inputs:
        if texts.reply.split == "train":
            for text in texts.kept[per_input:]:
                drops.add("over_per_input", text)
            pairs += [as_pair(texts.reply, text) for text in texts.kept[:per_input]]
    return pairs


def as_pair(reply: Reply, text: str) -> TrainingPair:
    return TrainingPair(input=reply.input, literal=reply.literal, paraphrase=text)


def make_references(inputs: Iterable[InputTexts]) -> list[Reference]:
    return [
        Reference(
            input=texts.reply.input,
            split=texts.reply.split,
            literal=texts.reply.literal,
            paraphrases=texts.kept,
        )
        for texts in inputs
        if texts.reply.split != "train" and texts.kept
    ]


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
