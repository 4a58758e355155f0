"""Learning curve of the critic: the drawn pairs, the measured pairs, the table and the figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quip.cli.main import app
from quip.cli.skill_packs import merge_params
from quip.core.params import load, read_params, validate
from quip.data.graded_pairs import GradedPair
from quip.evaluation import critic_learning_curve
from quip.runtime.errors import DataError, ParamsError
from quip.training import reward
from quip.training.reward import RewardParams

ROOT = Path(__file__).parents[3]
PARAMS = load("reward", RewardParams, ROOT / "params.yaml")
LITERALS = 40


def rows(funny: str = "jolly", first: int = 0) -> list[dict[str, str]]:
    """Pairs of which the better holds the word `funny`, one a literal."""
    texts = [f"It rained on day {first + i}" for i in range(LITERALS)]
    return [
        {"literal": text, "text_a": f"{text}, a {funny} one", "text_b": f"{text}, again"}
        | {"label": "a"}
        for text in texts
    ]


def written(path: Path, pairs: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """Training is replaced by remembering what was drawn: the critic of n pairs is right on the
    first n of the pairs it is measured on."""
    asked: list[tuple[int, list[str]]] = []

    def train(pairs: list[GradedPair], params: RewardParams, what: str) -> int:
        asked.append((params.seed, [pair.id for pair in pairs]))
        return len(pairs)

    monkeypatch.setattr(reward, "train", train)
    monkeypatch.setattr(
        reward, "pair_accuracies", lambda n, pairs: [float(i < n) for i in range(len(pairs))]
    )
    return asked


def test_a_larger_draw_holds_the_smaller_and_seeds_draw_anew(
    scripted: list[tuple[int, list[str]]], tmp_path: Path
) -> None:
    learn = written(tmp_path / "learn.jsonl", rows())
    measure = written(tmp_path / "measure.jsonl", rows(first=100))
    found = list(
        critic_learning_curve.learning_curve(
            critic_learning_curve.read_pairs([learn], measure), [10, 30], 2, PARAMS
        )
    )
    assert [(point.size, point.mean) for point in found] == [(10, 0.25), (30, 0.75)]
    assert all(point.low < point.mean < point.high for point in found)
    (_, one), (_, two), (_, more), _ = scripted
    assert [seed for seed, _ in scripted] == [1, 2, 1, 2]
    assert more[:10] == one
    assert one != two
    assert len(set(more)) == 30


def test_without_a_file_to_measure_on_the_literals_are_halved(tmp_path: Path) -> None:
    data = critic_learning_curve.read_pairs([written(tmp_path / "votes.jsonl", rows())], None)
    learn, measure = ({p.literal for p in pairs} for pairs in data)
    assert len(learn | measure) == LITERALS
    assert not learn & measure


def test_halves_that_are_given_are_kept(tmp_path: Path) -> None:
    held = [{**row, "half": "held_out"} for row in rows()]
    with pytest.raises(DataError, match="no pair is left to learn from"):
        critic_learning_curve.read_pairs([written(tmp_path / "v.jsonl", held)], None)


def test_measuring_on_training_pairs_is_refused(tmp_path: Path) -> None:
    learn = written(tmp_path / "learn.jsonl", rows())
    measure = written(tmp_path / "measure.jsonl", rows()[:3] + rows(first=100))
    with pytest.raises(DataError, match=r"3 literals are both among .*'It rained on day 0'"):
        critic_learning_curve.read_pairs([learn], measure)


def test_sizes_are_at_most_the_available_pairs() -> None:
    assert critic_learning_curve.parse_sizes(None, 500) == [50, 200]
    assert critic_learning_curve.parse_sizes(None, 20) == [20]
    assert critic_learning_curve.parse_sizes("200, 50,all", 700) == [50, 200, 700]
    for wanted in ("0", "501", "many", "", "1.5"):
        with pytest.raises(ParamsError, match=r"--sizes: .* neither a number from 1 to 500"):
            critic_learning_curve.parse_sizes(wanted, 500)


def test_the_command_prints_a_table_and_draws_a_curve(
    scripted: list[tuple[int, list[str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    learn = written(tmp_path / "learn.jsonl", rows())
    measure = written(tmp_path / "measure.jsonl", rows(first=100))
    figure = tmp_path / "curve.svg"
    words = ["grow", str(learn), "--measure", str(measure), "--sizes", "10,20", "--seeds", "2"]
    found = CliRunner().invoke(
        app, [*words, "--figure", str(figure), "--params", "params.headlines.yaml"]
    )
    assert found.exit_code == 0, found.output
    assert "from 40 pairs; measured on 40 untied pairs of 40 literals" in found.output
    assert critic_learning_curve.HEADER in found.output
    assert "\n| 10 | 0.250 | 0." in found.output
    assert "| 0.500, 0.500 |\n" in found.output
    drawing = figure.read_text(encoding="utf-8")
    assert drawing.count("<svg") == 1
    assert {"votes learned from", "0.250", "0.500"} <= set(
        part.strip() for part in drawing.replace("<", ">").split(">")
    )


def test_a_bad_input_ends_the_command_with_one_line(tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.jsonl", [{"text_a": "one", "text_b": "two", "label": "c"}])
    found = CliRunner().invoke(app, ["grow", str(bad)])
    assert found.exit_code == 2
    assert "bad.jsonl, line 1: label is 'c'" in found.output


def test_the_shipped_recipe_for_headlines_is_valid() -> None:
    laid = merge_params(
        read_params(ROOT / "params.yaml"), read_params(ROOT / "params.headlines.yaml")
    )
    validate(laid["reward"], RewardParams, "reward")


@pytest.mark.slow
def test_a_real_critic_learns_a_taste_from_votes(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, one word that people like: unseen literals are judged rightly."""
    data = critic_learning_curve.read_pairs(
        [written(tmp_path / "votes.jsonl", rows())],
        written(tmp_path / "measure.jsonl", rows(first=100)[:20]),
    )
    recipe = PARAMS.model_copy(update={"spoiled": False, "batch_size": 8})
    (point,) = critic_learning_curve.learning_curve(data, [LITERALS], 1, recipe)
    assert point.mean > 0.95
