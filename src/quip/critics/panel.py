"""Panel critic: several critics combined by logistic regression.

A signal is a critic in the short form of `quip.critics.critic_settings.parse` (another question,
prompt or endpoint) or `words`, the difference in length. For each comparison it gives one number
x(a, b) = -x(b, a): the log-odds of the critic's preference, averaged over both orders, or words(a)
- words(b). Then

    p(a) = sigmoid(sum of weight * x(a, b)),

without intercept, so that a text against itself is one half and swapping the texts gives one minus
p. The weights are fitted on the tuning half of the gold pairs (ridge, C = 1, features standardised
by their spread). They are not stored: every use fits them again from replies in the call store. The
audit reports the other half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quip.core.jsonl import read_rows
from quip.core.records import Answer, Critique, GoldPair
from quip.critics import comparison, critic_settings, prompted
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_settings import LEARNED, PANEL, CriticParams
from quip.critics.debiasing import logit, preference, sigmoid
from quip.runtime.errors import DataError, ParamsError

GOLD = Path("data/raw/gold.jsonl")
WORDS = "words"
Spent = dict[str, float | str]


def ask(params: CriticParams, pairs: Sequence[Comparison], what: str) -> Answers:
    """Fit the panel on the tuning half of the gold pairs and ask it about `pairs`. Raises DataError
    when there is no tuning pair."""
    gold = gold_half(read_rows(GOLD, GoldPair), "tune", params.panel.per_kind)
    if not gold:
        raise DataError(f"{GOLD}: no gold pair has half 'tune', so the panel cannot be fitted.")
    tuning_pairs = comparison.gold_comparisons(gold)
    tuning_features, tuning_spent = signal_matrix(
        params, tuning_pairs, f"{what} (panel, to be fitted)"
    )
    weights = regression(tuning_features[~np.isnan(tuning_features).any(axis=1)])
    features, asking_spent = signal_matrix(params, pairs, what)
    rows = [panel_critique(pair, x @ weights) for pair, x in zip(pairs, features, strict=True)]
    return Answers(rows, merge_ledgers([tuning_spent, asking_spent]))


def signal_matrix(
    params: CriticParams, pairs: Sequence[Comparison], what: str
) -> tuple[np.ndarray, Spent]:
    """(pairs, signals) features, NaN where no answer could be read; and the ledger of the calls."""
    columns, spent = [], []
    for spec in params.panel.signals:
        if spec == WORDS:
            columns.append([float(len(p.a.split()) - len(p.b.split())) for p in pairs])
            continue
        answers = prompted.ask(panel_member(spec, params), pairs, f"{what}, {spec}")
        columns.append([log_odds(row) for row in answers.rows])
        spent.append(answers.spent)
    return np.array(columns).T, merge_ledgers(spent)


def panel_member(spec: str, params: CriticParams) -> CriticParams:
    """The critic of a signal. Raises ParamsError for a learned critic or a panel."""
    one = critic_settings.parse(spec, params)
    if one.kind in (LEARNED, PANEL):
        raise ParamsError(
            f"params.yaml: '{spec}' cannot be a signal of critic.panel: a learned critic was "
            "trained on the pairs that the panel is fitted on, and a panel holds no panel."
        )
    return one


def log_odds(row: Critique) -> float:
    p = preference(row.forward, row.backward)
    return float("nan") if p is None else logit(p)


def regression(features: np.ndarray) -> np.ndarray:
    """Weights (k,) of a logistic regression without intercept (ridge, C = 1); `features` (n, k) are
    those of the better text minus those of the worse. Each pair enters in both directions, so the
    fit is symmetric."""
    from sklearn.linear_model import LogisticRegression

    spread = features.std(axis=0)
    spread[spread == 0] = 1.0
    both = np.vstack([features, -features]) / spread
    known = np.repeat([1, 0], len(features))
    fitted = LogisticRegression(fit_intercept=False, C=1.0).fit(both, known).coef_[0]
    return np.asarray(fitted / spread)


def panel_critique(pair: Comparison, x: float) -> Critique:
    """The panel's critique. Its source is `learned`: a fitted probability without position bias."""
    if pair.a == pair.b:
        forward = backward = Answer(p_first=0.5, source="identical")
    elif np.isnan(x):
        forward = backward = Answer(p_first=None, source="unread")
    else:
        forward, backward = (Answer(p_first=sigmoid(y), source="learned") for y in (x, -x))
    return Critique(**pair._asdict(), judge=PANEL, forward=forward, backward=backward)


def gold_half(pairs: Sequence[GoldPair], half: str, per_kind: int | None) -> list[GoldPair]:
    """One half of the gold pairs, at most `per_kind` of each kind (the first in the file)."""
    kinds = dict.fromkeys(pair.kind for pair in pairs)
    halves = {k: [p for p in pairs if p.kind == k and p.half == half] for k in kinds}
    return [pair for group in halves.values() for pair in group[:per_kind]]


def merge_ledgers(ledgers: Sequence[Spent]) -> Spent:
    """The sum of several ledgers, with the names of their models joined."""
    counts = Counter[str]()
    for ledger in ledgers:
        counts.update({key: value for key, value in ledger.items() if not isinstance(value, str)})
    models = dict.fromkeys(str(ledger["model"]) for ledger in ledgers if "model" in ledger)
    return {"model": " + ".join(models), **counts} if models else {}
