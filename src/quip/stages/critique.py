"""critique: show the critic two of the student's own attempts at each training input.

Of an input's k samples the most diverse pair is compared (the paper's section on candidates):
the critic is asked in both orders, and its raw answers are kept. Deciding is the next stage.

    python -m quip.stages.critique --candidates data/candidates.jsonl --reward models/reward \
        --out data/critique.jsonl --metrics data/metrics/critique.json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

from quip import stage
from quip.critic import Comparison, CriticParams, ask
from quip.diversity import edit_distance
from quip.errors import DataError
from quip.params import Section, load
from quip.records import Candidate, read_rows, write_json, write_rows


class Params(Section):
    ngram: int
    length_ratio: tuple[float, float]


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "candidates", "reward", "out", "metrics")
    params, critic = load("critique", Params), load("critic", CriticParams)
    pairs, dropped = choose(read_rows(args.candidates, Candidate), params)
    if not pairs:
        raise DataError(
            f"critique: no pair of candidates is left ({dict(dropped)}). Raise candidates.k or "
            "candidates.temperature, or widen critique.length_ratio."
        )
    rows, spent = ask(critic, args.reward, pairs, "critique")
    write_rows(args.out, rows)
    stage.say("critique", {"pairs": len(rows), **dropped})
    write_json(args.metrics, {"pairs": len(rows), "dropped": dict(dropped), **spent})


def choose(
    candidates: Iterable[Candidate], params: Params
) -> tuple[list[Comparison], Counter[str]]:
    """The most diverse allowed pair of each training input, and how many inputs had none."""
    by_input: dict[str, list[Candidate]] = {}
    for row in candidates:
        if row.split == "train" and row.text:
            by_input.setdefault(row.input, []).append(row)
    pairs, dropped = [], Counter[str]()
    for rows in by_input.values():
        distinct = list({row.text: row for row in rows}.values())
        allowed = [pair for pair in combinations(distinct, 2) if similar_length(*pair, params)]
        if allowed:
            pairs.append(comparison(max(allowed, key=lambda pair: spread(pair, params.ngram))))
        else:
            dropped["all_alike" if len(distinct) < 2 else "length_ratio"] += 1
    return pairs, dropped


def similar_length(a: Candidate, b: Candidate, params: Params) -> bool:
    """Whether words(a) / words(b) lies within the allowed ratio (the paper: 0.8 to 1.2)."""
    low, high = params.length_ratio
    short, long = sorted((len(a.text.split()), len(b.text.split())))
    return low <= short / long and long / short <= high


def spread(pair: tuple[Candidate, Candidate], ngram: int) -> float:
    return edit_distance(pair[0].text, pair[1].text, ngram)


def comparison(pair: tuple[Candidate, Candidate]) -> Comparison:
    a, b = pair
    return Comparison(a.input, a.split, a.literal, str(a.sample), str(b.sample), a.text, b.text)


if __name__ == "__main__":
    stage.run(main)
