"""preferences: turns the critic's answers into rankings and training pairs.

The answers in two orders become one debiased preference, the comparisons of an input a ranking, and
its best and worst text a pair. Inputs with a low confidence are dropped. A critic that always names
one position has no confidence anywhere, so it yields no pair.

    python -m quip.stages.preferences --critique data/critique.jsonl --out data/preferences.jsonl \
        --rankings data/rankings.jsonl --metrics data/metrics/preferences.json
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import Section, load
from quip.core.records import Critique
from quip.critics.debiasing import Debias, order_flips
from quip.critics.ranking import decide
from quip.runtime import stage
from quip.runtime.errors import DataError


class Params(Section):
    min_confidence: float
    max_unparsed: float


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "critique", "out", "rankings", "metrics")
    params = load("preferences", Params)
    critiques = read_rows(args.critique, Critique)
    rows, rankings, dropped = decide(critiques, load("debias", Debias), params.min_confidence)
    check_unparsed(critiques, params.max_unparsed)
    if not rows:
        raise DataError(
            f"preferences: no pair is left of {len(critiques)} ({dict(dropped)}). Lower "
            "preferences.min_confidence, or measure the critic (`dvc repro audit`)."
        )
    write_rows(args.out, rows)
    write_rows(args.rankings, rankings)
    flips = [order_flips(c.forward, c.backward) for c in critiques]
    counts = {"critiques": len(critiques), "kept": len(rows)}
    stage.print_counts("preferences", {**counts, **dropped})
    write_json(
        args.metrics,
        {
            **counts,
            "dropped": dict(dropped),
            "flip_rate": round(sum(bool(f) for f in flips) / len(flips), 4),
            "confidence": round(sum(row.confidence for row in rows) / len(rows), 4),
            "chosen_words": mean_words(row.chosen for row in rows),
            "rejected_words": mean_words(row.rejected for row in rows),
        },
    )


def check_unparsed(critiques: Sequence[Critique], limit: float) -> None:
    unread = [c for c in critiques if c.forward.p_first is None or c.backward.p_first is None]
    if len(unread) > limit * len(critiques):
        first = unread[0]
        raw = first.forward.raw or first.backward.raw
        raise DataError(
            f"{len(unread)} of {len(critiques)} critiques could not be read (limit {limit:.0%}). "
            f"First: input {first.input}: {raw[:80]!r}. Look at prompts/critic.txt."
        )


def mean_words(texts: Iterable[str]) -> float:
    lengths = [len(text.split()) for text in texts]
    return round(sum(lengths) / len(lengths), 2)


if __name__ == "__main__":
    stage.run(main)
