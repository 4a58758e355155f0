"""The audit on pairs that people graded: the pairs of each critic, and figures worked by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fake_endpoint import ChatServer, likes, shown
from quip.core.jsonl import write_json, write_rows
from quip.core.records import Answer, Critique, GoldPair
from quip.critics.comparison import Answers, Comparison
from quip.critics.critic_settings import CriticParams
from quip.critics.debiasing import Debias
from quip.data.graded_pairs import GradedPair
from quip.evaluation import human_agreement
from quip.evaluation.metrics import bootstrap
from quip.stages import audit
from stage_options import options

DEBIAS = Debias(method="log_odds", scale=1.0, per_word=0.0)
LEARNED = CriticParams(kind="learned", endpoint="none", prompt="none", samples=1)
COSTLY = CriticParams(kind="mcp", endpoint="costly", prompt="critic", samples=1)


def graded(key: str, literal: str, source: str = "votes") -> GradedPair:
    return GradedPair(
        id=key, literal=literal, better=f"good {key}", worse=f"bad {key}", source=source
    )


PAIRS = [graded(f"p{i}", f"literal {i // 3}") for i in range(12)]


def scripted(
    says: Callable[[CriticParams, Comparison], float],
) -> tuple[human_agreement.AskCritic, list[tuple[str, str]]]:
    """A critic whose probability of the better text is `says`, and whom it was asked about."""
    asked = []

    def ask(critic: CriticParams, pairs: Any, what: str) -> Answers:
        rows = []
        for pair in pairs:
            asked.append((critic.kind, pair.input))
            p = says(critic, pair)
            forward, backward = (Answer(p_first=x, source="logprobs") for x in (p, 1 - p))
            rows.append(
                Critique(**pair._asdict(), judge=critic.kind, forward=forward, backward=backward)
            )
        return Answers(rows, {"calls": 2 * len(rows)})

    return ask, asked


def by_source(pairs: Sequence[GradedPair]) -> dict[str, list[dict[str, Any]]]:
    """What the stage `pairs` writes."""
    names = dict.fromkeys(pair.source for pair in pairs)
    return {name: [pair.model_dump() for pair in pairs if pair.source == name] for name in names}


CRITICS = {"learned": (LEARNED, DEBIAS), "costly": (COSTLY, DEBIAS)}


def measured(
    tmp_path: Path, ask: human_agreement.AskCritic, most: int | None, *pairs: GradedPair
) -> Any:
    write_json(tmp_path / "extra.json", by_source(pairs))
    found, spent = human_agreement.measure_agreement(
        tmp_path / "extra.json", CRITICS, ask, most, 500, 1
    )
    assert all(by_name["costly"]["calls"] for by_name in spent.values())
    return found


def test_every_critic_is_measured_on_every_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask, _ = scripted(lambda critic, pair: 0.9 if critic is LEARNED else 0.2)
    found = measured(tmp_path, ask, None, *PAIRS, graded("q", "other", "headlines"))
    assert {source: list(by_name) for source, by_name in found.items()} == {
        "votes": ["learned", "costly"],
        "headlines": ["learned", "costly"],
    }
    learned, costly = found["votes"].values()
    assert (learned["agreement"], learned["n"], learned["literals"]) == (1.0, 12, 4)
    assert (costly["agreement"], costly["n"]) == (0.0, 12)
    assert "calls" not in costly
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "learned: agreement with people 1.000 [1.000, 1.000] on 12 pairs of votes" in lines[0]


def test_critics_that_cost_calls_get_the_same_few_pairs(tmp_path: Path) -> None:
    ask, asked = scripted(lambda critic, pair: 0.9)
    found = measured(tmp_path, ask, 5, *PAIRS)
    assert [one["n"] for one in found["votes"].values()] == [12, 5]
    few = [key for kind, key in asked if kind == "mcp"]
    assert few == [pair.id for pair in human_agreement.subsample(PAIRS[::-1], 5)][::-1]
    assert few != [pair.id for pair in PAIRS[:5]]


def test_no_files_give_no_figures(tmp_path: Path) -> None:
    write_json(tmp_path / "extra.json", {})
    ask, asked = scripted(lambda critic, pair: 0.9)
    found, _ = human_agreement.measure_agreement(
        tmp_path / "extra.json", CRITICS, ask, None, 100, 1
    )
    assert (found, asked) == ({}, [])


def test_the_interval_resamples_literals_and_not_pairs() -> None:
    """Three pairs a literal that always go together are one observation, not three."""
    alone = [[float(i % 2)] for i in range(60)]
    together = [[value[0]] * 3 for value in alone]
    wide = bootstrap.clustered_interval(together, 4000, 1)
    assert wide == bootstrap.clustered_interval(alone, 4000, 1)
    naive = bootstrap.clustered_interval([[x] for group in together for x in group], 4000, 1)
    ratio = np.diff(wide)[0] / np.diff(naive)[0]
    assert ratio == pytest.approx(3**0.5, rel=0.1)


@pytest.mark.usefixtures("critic_prompt")
def test_the_audit_stores_agreement_with_people_for_every_critic_it_asks(
    server: ChatServer, scripted_project: Callable[..., Path]
) -> None:
    debias = {"method": "log_odds", "scale": 1.0, "per_word": 0.0}
    endpoint = {"base_url": server.url, "model": "n", "concurrency": 1}
    scripted_project(
        endpoints={"other": endpoint},
        judge={"endpoints": ["scripted", "other"]},
        audit={"resamples": 100, "extra": ["votes"], "extra_pairs": 4},
        debias=debias,
    )
    server.answer = likes(lambda text: 2.0 * ("good" in text))
    held = [
        GoldPair(id="g", kind="k", half="held_out", literal="l", better="good g", worse="bad g")
    ]
    write_rows("gold.jsonl", held)
    write_json("extra.json", by_source(PAIRS))
    out = options(out="critiques.jsonl", calls="calls.jsonl", metrics="critic.json")
    ledger = options(reward="reward", ledger="ledger.json")
    audit.main([*options(gold="gold.jsonl", extra="extra.json"), *out, *ledger])
    found = json.loads(Path("critic.json").read_text(encoding="utf-8"))
    assert found["n"] == 1
    votes = found["extra"]["votes"]
    assert set(votes) == {"scripted", "other"}
    for one in votes.values():
        assert (one["agreement"], one["ci95"], one["n"]) == (1.0, [1.0, 1.0], 4)
    asked = [shown(body)[0] for body in server.asked]
    assert len(asked) == 2 * 2 * (1 + 4)
