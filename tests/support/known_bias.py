"""Critics with planted biases, and what the audit and every debiasing make of them.

    python tests/support/known_bias.py      writes its part of docs/critics.md

A fair critic's log-odds for the better text of a gold pair are normal with mean 1 and variance 2:
then its probabilities are calibrated, since the ratio of that density to its mirror image is e^x.
The lengths differ by -6 to 6 words, independently. To this something is planted. What should be
found follows by integration (`expect`); what is found comes from the pipeline's own functions.
tests/integration/test_known_bias.py holds the one against the other.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from quip.core.records import Answer, Critique, GoldPair
from quip.critics.debiasing import Debias, Method, calibrated_preference, logit
from quip.critics.ranking import decide
from quip.evaluation import critic_audit
from quip.evaluation.critic_comparison import fit_debias
from quip.evaluation.metrics import win_tie_rate
from quip.reporting.marked_block import rewrite_block

SEEDS = 200
PAIRS, TUNING = 80, 170
"""Gold pairs of a seed, for the audit and for the fit."""
DECIDED = 40
"""Seeds whose answers also become training pairs."""
RESAMPLES = 400
MEAN, SPREAD = 1.0, math.sqrt(2)
WORDS = 6
LEAN, A_WORD, NOISE, BONUS, LETTER = 2.0, 0.3, 1.5, 1.0, 6.0
"""What is planted, in log-odds: for the first text; for a word more; the standard deviation of
noise in each answer; for a text of one's own teacher; for the first text by one who always names
it."""
MIN_CONFIDENCE = 0.6
TIE_MARGIN = 0.05
METHODS: tuple[Method, ...] = get_args(Method)
BOTH_ORDERS: tuple[Method, ...] = ("log_odds",)
ONE_ORDER = {"none", "content_free"}
"""Methods, where the code offers them, that look at one order only, which a digest chooses."""

Array = np.ndarray


class Seed(NamedTuple):
    """One draw of gold pairs: the fair log-odds for the better text and by how many words it is the
    longer one, a number a pair each."""

    number: int
    fair: Array
    longer: Array
    pairs: list[GoldPair]


def draw(number: int, size: int = PAIRS) -> Seed:
    rng = np.random.default_rng(number)
    fair = rng.normal(MEAN, SPREAD, size)
    longer = rng.integers(-WORDS, WORDS + 1, size)
    pairs = [
        GoldPair.model_construct(
            id=f"{number}-{i}",
            kind="planted",
            half="held_out",
            literal=f"literal {number} {i}",
            better=" ".join(["better", *["word"] * max(0, more)]),
            worse=" ".join(["worse", *["word"] * max(0, -more)]),
        )
        for i, more in enumerate(longer.tolist())
    ]
    return Seed(number, fair, longer, pairs)


# ---- the critics: log-odds for the first text when the better comes first, and when the worse does

Said = tuple[Array, Array]


def fair(seed: Seed) -> Said:
    return seed.fair, -seed.fair


def position(seed: Seed) -> Said:
    return seed.fair + LEAN, -seed.fair + LEAN


def length(seed: Seed) -> Said:
    liked = seed.fair + A_WORD * seed.longer
    return liked, -liked


def noise(seed: Seed) -> Said:
    rng = np.random.default_rng([seed.number, 1])
    here, there = rng.normal(0, NOISE, (2, PAIRS))
    return seed.fair + here, -seed.fair + there


def everything(seed: Seed) -> Said:
    liked = seed.fair + A_WORD * seed.longer
    forward, backward = noise(seed._replace(fair=liked))
    return forward + LEAN, backward + LEAN


def letter(seed: Seed) -> Said:
    always = np.full(PAIRS, LETTER)
    return always, always


CRITICS: dict[str, Callable[[Seed], Said]] = {
    critic.__name__: critic for critic in (fair, position, length, noise, everything, letter)
}
LEANING = {"position": LEAN, "everything": LEAN, "letter": LETTER}


def answers(seed: Seed, said: Said) -> list[Critique]:
    """The critic's answers as the pipeline keeps them, the better text as `a`."""
    forward, backward = (1 / (1 + np.exp(-odds)) for odds in said)
    return [
        critique(pair.id, pair.literal, pair.better, pair.worse, first, second)
        for pair, first, second in zip(seed.pairs, forward.tolist(), backward.tolist(), strict=True)
    ]


def critique(key: str, literal: str, a: str, b: str, forward: float, backward: float) -> Critique:
    return Critique.model_construct(
        **{"input": key, "split": "gold", "literal": literal, "judge": "planted"},
        **{"name_a": "better", "name_b": "worse", "a": a, "b": b},
        forward=Answer.model_construct(p_first=forward, source="logprobs", raw=""),
        backward=Answer.model_construct(p_first=backward, source="logprobs", raw=""),
    )


def debias(method: Method, critic: str, per_word: float = 0.0) -> Debias:
    """Raw but for `per_word`; a content-free answer, where the method takes one, shows the lean and
    nothing else."""
    settings: dict[str, Any] = {"method": method, "scale": 1.0, "per_word": per_word}
    if "content_free" in Debias.model_fields:
        settings["content_free"] = 1 / (1 + math.exp(-LEANING.get(critic, 0.0)))
    return Debias(**settings)


# ---- what should be found


def above(mean: Any, spread: float, threshold: float = 0.0) -> Any:
    """P(x > threshold) of a normal x."""
    z = (np.asarray(mean) - threshold) / (spread * math.sqrt(2))
    return (1 + np.vectorize(math.erf)(z)) / 2


def expect(critic: str, method: Method, per_word: float = 0.0) -> dict[str, float]:
    """Agreement, position bias and length bias that are planted, as expectations over pairs."""
    if critic == "letter":
        undecided = 0.0 if method == "none" else 0.5
        first = 0.5 if method == "none" else undecided
        return {"agreement": first, "position_bias": 1.0, "length_bias": letter_length(method)}
    words = np.arange(-WORDS, WORDS + 1)
    a_word = A_WORD if critic in ("length", "everything") else 0.0
    noisy = NOISE if critic in ("noise", "everything") else 0.0
    lean = LEANING.get(critic, 0.0)
    mean = MEAN + (a_word + per_word) * words
    one = math.hypot(SPREAD, noisy)
    if method in ONE_ORDER:
        left = lean if method == "none" else 0.0
        right = (above(mean + left, one) + above(mean - left, one)) / 2
    else:
        right = above(mean, math.hypot(SPREAD, noisy / math.sqrt(2)))
    return {
        "agreement": float(right.mean()),
        "position_bias": flips(MEAN + a_word * words, lean, noisy),
        "length_bias": float(((1 - right) * (words < 0)).mean()),
    }


def flips(mean: Array, lean: float, noisy: float) -> float:
    """P(both answers name the same position), integrated over the fair log-odds if there is noise;
    else that of log-odds within the lean."""
    if not noisy:
        return float((above(mean, SPREAD, -lean) - above(mean, SPREAD, lean)).mean())
    x, weight = np.polynomial.hermite_e.hermegauss(60)
    liked = mean[:, None] + SPREAD * x
    first, second = above(liked + lean, noisy), above(-liked + lean, noisy)
    same = first * second + (1 - first) * (1 - second)
    return float((same @ weight / weight.sum()).mean())


def letter_length(method: Method) -> float:
    """Who is shown one order only takes the longer text for the better one by chance."""
    return 0.5 * WORDS / (2 * WORDS + 1) if method == "none" else 0.0


# ---- what is found


class Found(NamedTuple):
    """Figures of one critic and debiasing: those of the audit, (SEEDS,) each, and the shares of
    pairs from which it learns at all and learns the wrong way round."""

    agreement: Array
    position_bias: Array
    length_bias: Array
    covered: Array
    kept: float
    wrong: float


def measure(critic: str, used: Debias, seeds: list[Seed], rows: list[list[Critique]]) -> Found:
    """The audit of every seed, and the training pairs that the same answers would give."""
    planted = expect(critic, used.method, used.per_word)["agreement"]
    columns = []
    for seed, said in zip(seeds, rows, strict=True):
        found = critic_audit.audit_summary(seed.pairs, said, used, RESAMPLES, seed.number)
        low, high = found["ci95"]
        figures = [found[name] for name in ("agreement", "position_bias", "length_bias")]
        columns.append([*figures, low <= planted <= high])
    decided = [row for said in rows[:DECIDED] for row in said]
    pairs, _, _ = decide(decided, used, MIN_CONFIDENCE)
    wrong = sum(pair.chosen.startswith("worse") for pair in pairs)
    shares = len(pairs) / len(decided), wrong / len(decided)
    return Found(*np.array(columns, dtype=float).T, *shares)


def all_methods(seeds: list[Seed]) -> Iterator[tuple[str, Method, float, Found]]:
    """(critic, method, per_word, figures): every critic with every method, and the two that like
    length with the planted taste taken off."""
    for critic, says in CRITICS.items():
        rows = [answers(seed, says(seed)) for seed in seeds]
        for method in METHODS if critic in LEANING else BOTH_ORDERS:
            yield critic, method, 0.0, measure(critic, debias(method, critic), seeds, rows)
        if critic in ("length", "everything"):
            used = debias("log_odds", critic, -A_WORD)
            yield critic, "log_odds", -A_WORD, measure(critic, used, seeds, rows)


def fitted() -> Array:
    """`scale` and `per_word` as `quip critics` fits them, of the critic that likes length,
    (SEEDS, 2); planted: 1 and -A_WORD."""
    seeds = [draw(number, TUNING) for number in range(SEEDS)]
    found = [fit_debias(answers(seed, length(seed)), "log_odds") for seed in seeds]
    return np.array([[one.scale, one.per_word] for one in found])


def leakage(seeds: list[Seed]) -> tuple[Array, float]:
    """The score that a judge gives an arm against its own teacher less the score of an unbiased
    judge on the same texts, (SEEDS,), and the gap that is planted. The arm is as good as the
    teacher; the judge's BONUS goes to every text of the teacher."""
    gaps = []
    for seed in seeds:
        rng = np.random.default_rng([seed.number, 2])
        better = rng.normal(0, SPREAD, PAIRS)
        scores = []
        for bonus in (BONUS, 0.0):
            odds = better - bonus
            rows = answers(seed, (odds + LEAN, -odds + LEAN))
            compared = [
                win_tie_rate.JudgedInput(
                    row.input, calibrated_preference(row, debias("log_odds", "position")), None, 1.0
                )
                for row in rows
            ]
            scores.append(win_tie_rate.score(win_tie_rate.count_outcomes(compared, TIE_MARGIN)))
        gaps.append(scores[0] - scores[1])
    edge = logit(0.5 + TIE_MARGIN)
    planted = float(above(-BONUS, SPREAD, edge) + above(-BONUS, SPREAD, -edge)) / 2 - 0.5
    return np.array(gaps), planted


# ---- the page

BLOCK = "known_bias"
"""The name of the marks in docs/critics.md."""

PAGE = """\
Does the audit find what is wrong with a critic, and does debiasing take it away? For a real critic
nobody knows the answer. So `tests/support/known_bias.py` plants biases in scripted critics and
passes their answers through the pipeline's own functions: `critic_audit.audit_summary`,
`ranking.decide` (the stage `preferences`), `critic_comparison.fit_debias` (`quip critics`) and the
counts of `win_tie_rate`. `python tests/support/known_bias.py` writes this section;
`tests/integration/test_known_bias.py` compares every figure with what was planted.

A fair critic's log-odds for the better text are normal with mean 1 and variance 2, so that its
probabilities are calibrated; the better text is -6 to 6 words the longer one, by chance. Planted,
in log-odds: `position` {lean} for the text shown first; `length` {a_word} a word; `noise` of
standard deviation {noise} in each answer; `everything` all three; `letter` answers {letter} for
the first text whatever it is shown.

### What the audit finds

{seeds} seeds of {pairs} gold pairs. Each cell: what was planted; what the audit found, the mean
over seeds and the middle 95 % of them. "Covered": seeds whose 95 % interval of the agreement holds
the planted one. "Learned": the training pairs that `preferences.min_confidence` {confidence} lets
through, and those among them that prefer the worse text, as shares of all pairs ({decided} seeds).

| critic | method | per_word | agreement | position bias | length bias | covered | learned, wrong |
|---|---|---|---|---|---|---|---|
{rows}

- Position bias and length bias are found as planted, and the intervals cover the planted values.
- Averaging log-odds gives a leaning critic the agreement, and the very preferences, of the fair
  one. Averaging probabilities names the same texts less surely, so fewer pairs pass.{one_order}
- Length bias goes when the planted taste is taken off (`per_word`); what is left of it are honest
  mistakes on pairs whose worse text is longer.
- Noise in the answers cannot be taken off. It lowers the agreement, which the audit shows.
- A critic that always names one letter yields no training pair at all, by any method.

### What the fit finds

`debias.scale` and `debias.per_word` of the critic that likes length, fitted on {tuning} pairs by a
regression with a ridge, which draws both towards 0: planted 1 and {minus_a_word}; found {scale} and
{per_word} (mean and middle 95 % of {seeds} seeds).

### Self-preference

A judge gives each text of its own teacher {bonus} in log-odds; the arm is as good as the teacher.
Planted gap between its score of the arm and an unbiased judge's on the same {pairs} texts:
{gap_planted}; found {gap}."""


def main() -> int:
    seeds = [draw(number) for number in range(SEEDS)]
    rows = [line(*row) for row in all_methods(seeds)]
    weights = fitted()
    gaps, gap = leakage(seeds)
    one_order = ""
    if set(METHODS) >= ONE_ORDER:
        one_order = (
            "\n- `content_free` looks at one order and takes the lean off it as measured on empty "
            "texts: as good\n  as both orders where the lean is constant and there is no noise to "
            "average. `none` believes one\n  order."
        )
    page = PAGE.format(
        **{"lean": LEAN, "a_word": A_WORD, "noise": NOISE, "letter": LETTER, "bonus": BONUS},
        **{
            "seeds": SEEDS,
            "pairs": PAIRS,
            "confidence": MIN_CONFIDENCE,
            "decided": DECIDED,
            "tuning": TUNING,
        },
        one_order=one_order,
        rows="\n".join(rows),
        minus_a_word=-A_WORD,
        scale=spread(weights[:, 0]),
        per_word=spread(weights[:, 1]),
        gap_planted=f"{gap:.3f}",
        gap=spread(gaps, 3),
    )
    rewrite_block(Path(__file__).parents[2] / "docs" / "critics.md", BLOCK, page)
    return 0


def line(critic: str, method: Method, per_word: float, found: Found) -> str:
    planted = expect(critic, method, per_word)
    cells = [f"`{critic}`", f"`{method}`", f"{per_word:g}"]
    cells += [
        f"{planted[name]:.2f}; {spread(getattr(found, name))}"
        for name in ("agreement", "position_bias", "length_bias")
    ]
    cells += [f"{100 * found.covered.mean():.0f} %", f"{found.kept:.2f}, {found.wrong:.2f}"]
    return f"| {' | '.join(cells)} |"


def spread(values: Array, digits: int = 2) -> str:
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{values.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    sys.exit(main())
