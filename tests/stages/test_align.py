"""align and rank: refused settings, unwanted arms, and the training data of BRIO."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_endpoint import ChatServer, likes
from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import load
from quip.core.records import Preference, Ranking, TrainingPair
from quip.runtime.errors import DataError, ParamsError, WeightsError
from quip.stages import align, rank
from quip.training import brio
from quip.training import dpo as dpo_module
from stage_options import options

Project = Callable[..., Path]
SETTINGS: dict[str, Any] = {
    "beta": 0.1,
    "loss_type": ["sigmoid"],
    "loss_weights": [1.0],
    "label_smoothing": 0.0,
    "ld_alpha": None,
    "reference": "warm_start",
}


def dpo(**changes: Any) -> dpo_module.Dpo:
    return dpo_module.Dpo(**{**SETTINGS, **changes})


def wanted(value: bool, arm: str = "brio_dpo") -> Path:
    file = Path(f"{arm}.json")
    file.write_text(json.dumps({"arm": arm, "wanted": value}))
    return file


def pair(number: int, literal: int = 1) -> TrainingPair:
    texts = ["my bus missed me", "the bus and I are done", "a bus left, like a thief"]
    return TrainingPair(
        input=f"i{literal}", literal=f"I missed bus {literal}.", paraphrase=texts[number]
    )


# ---- align


@pytest.mark.parametrize(
    ("check", "changes", "message"),
    [
        (
            dpo_module.check_weights,
            {"loss_weights": [1.0, 0.2]},
            "dpo.loss_weights.*one weight for each term",
        ),
        (
            dpo_module.check_loop_terms,
            {"loss_type": ["ipo"]},
            "'ipo' is for causal.*sigmoid, robust, sft",
        ),
        (dpo_module.check_loop_terms, {"ld_alpha": 0.5}, "dpo.ld_alpha.*null"),
        (
            dpo_module.check_loop_terms,
            {"loss_type": ["robust"], "label_smoothing": "confidence"},
            "dpo.label_smoothing.*'robust' needs one number.*'sigmoid'",
        ),
    ],
)
def test_a_setting_that_a_trainer_would_ignore_is_refused(
    check: Callable[[dpo_module.Dpo], dpo_module.Dpo], changes: dict[str, Any], message: str
) -> None:
    assert check(dpo()) == dpo()
    with pytest.raises(ParamsError, match=message):
        check(dpo(**changes))


@pytest.mark.parametrize(
    ("terms", "smoothing", "own"),
    [
        (["sigmoid"], 0.0, False),
        (["robust"], 0.1, False),
        (["robust", "sft"], 0.1, False),
        (["sigmoid"], 0.1, True),
        (["sigmoid", "robust"], 0.1, True),
        (["sigmoid_norm"], 0.1, True),  # which then is refused, since nobody has it
        (["sigmoid"], "confidence", True),
        (["robust"], "confidence", True),
    ],
)
def test_trl_gets_no_smoothing_that_it_would_ignore(
    terms: list[str], smoothing: Any, own: bool
) -> None:
    found = dpo(loss_type=terms, loss_weights=[1.0] * len(terms), label_smoothing=smoothing)
    assert dpo_module.needs_own_loop(found) is own


@pytest.mark.parametrize("smoothing", [0.5, -0.1, "confident", None])
def test_a_smoothing_out_of_range_is_one_line(smoothing: Any, project: Project) -> None:
    project(dpo={"label_smoothing": smoothing})
    with pytest.raises(ParamsError, match=r"^params.yaml: key 'dpo.label_smoothing[^\n]*$"):
        load("dpo", dpo_module.Dpo)


def arguments(**changes: object) -> list[str]:
    names: dict[str, object] = dict.fromkeys(("start", "feedback", "pairs"), "x")
    names |= {"arm": "brio", "model": "models/a", "curve": "a.csv", "run": "a.json"}
    return options(**{**names, **changes})


def test_an_arm_that_does_not_exist_is_refused(project: Project) -> None:
    project()
    with pytest.raises(ParamsError, match=r"unknown arm 'ppo'.*brio, dpo, brio_dpo"):
        align.main(arguments(arm="ppo", wanted=wanted(True, "ppo")))


def test_a_skipped_arm_reads_nothing_and_says_how_to_train_it(project: Project) -> None:
    project()
    align.main(arguments(wanted=wanted(False, "brio_dpo")))
    assert "'brio_dpo'" in Path("models/a/NOT_TRAINED").read_text()
    assert json.loads(Path("a.json").read_text())["run_id"] is None


def test_a_missing_student_is_one_clear_line(project: Project, checkout: Path) -> None:
    project()
    write_rows("p.jsonl", [pair(0)])
    row = Preference(input="i1", literal="x", chosen="b", rejected="c", confidence=0.9)
    write_rows("preferences.jsonl", [row])
    with pytest.raises(WeightsError, match="models/none"):
        align.main(
            arguments(
                **{"arm": "dpo", "wanted": wanted(True, "dpo"), "start": "models/none"},
                **{"feedback": "preferences.jsonl", "pairs": "p.jsonl"},
            )
        )


def test_brio_imitates_the_teacher_s_first_text_where_there_is_one(project: Project) -> None:
    project()
    write_rows("pairs.jsonl", [pair(1), pair(2)])
    rankings = [
        Ranking(input=i, literal=i, texts=["a", "b"], scores=[0.8, 0.2], ranks=[0, 1])
        for i in ("i1", "unasked")
    ]
    write_rows("rankings.jsonl", rankings)
    files = Namespace(pairs="pairs.jsonl", feedback="rankings.jsonl")
    _, data, rows, settings = brio.brio_recipe(files, None)
    assert [row.target for row in rows] == [pair(1).paraphrase, None]
    assert [row.ranking for row in rows] == rankings
    assert data == {"rankings": "rankings.jsonl", "pairs": "pairs.jsonl"}
    assert settings["loss"] == "brio"


@pytest.mark.parametrize(
    ("reference", "expected"), [("warm_start", "models/sft"), ("previous", "models/rounds/dpo-1")]
)
def test_the_reference_is_the_warm_start_or_the_round_before(
    reference: str, expected: str, project: Project
) -> None:
    project(dpo={"reference": reference})
    write_rows(
        "preferences.jsonl",
        [Preference(input="a", literal="x", chosen="b", rejected="c", confidence=0.9)],
    )
    files = Namespace(
        start="models/rounds/dpo-1", reference="models/sft", feedback="preferences.jsonl"
    )
    assert dpo_module.dpo_recipe(files, None)[3]["reference"] == expected


def test_no_two_trainings_share_a_name() -> None:
    models = ["models/brio", "models/warm/brio", "models/rounds/brio-1"]
    names = [align.name_of(Path(model)) for model in models]
    assert names == ["brio", "warm-brio", "rounds-brio-1"]


# ---- rank


def ranked(is_wanted: bool = True, low: float = 0.6) -> dict[str, Any]:
    write_json("audit.json", {"agreement": low + 0.1, "ci95": [low, low + 0.2]})
    rank.main(
        options(
            **{"wanted": wanted(is_wanted), "pairs": "pairs.jsonl", "reward": "models/reward"},
            **{"audit": "audit.json", "out": "rankings.jsonl", "calls": "calls.jsonl"},
            metrics="metrics.json",
        )
    )
    found: dict[str, Any] = json.loads(Path("metrics.json").read_text())
    return found


@pytest.fixture
def teacher_texts(scripted_project: Project, server: ChatServer, critic_prompt: None) -> None:
    """Three texts for one input, one for another; the critic likes short ones."""
    server.answer = likes(lambda text: -len(text), lean=2.0)
    scripted_project(critique={"length_ratio": [0.5, 2.0]}, debias={"scale": 1.0, "per_word": 0.0})
    write_rows("pairs.jsonl", [pair(2), pair(0), pair(1), pair(0, literal=2)])


def test_the_teacher_s_texts_are_ranked_by_every_two_of_them(
    teacher_texts: None, server: ChatServer
) -> None:
    metrics = ranked()
    (row,) = read_rows("rankings.jsonl", Ranking)
    assert row.texts == [pair(0).paraphrase, pair(1).paraphrase, pair(2).paraphrase]
    assert row.ranks == [0, 1, 2]
    assert len(server.asked) == 2 * 3
    assert (metrics["critiques"], metrics["rankings"]) == (3, 1)
    assert metrics["dropped"] == {"all_alike": 1}


def test_rank_makes_no_call_unless_brio_dpo_is_wanted(
    teacher_texts: None, server: ChatServer
) -> None:
    assert ranked(False) == {"rankings": 0}
    assert server.asked == []
    assert Path("rankings.jsonl").read_text() == ""


def test_no_ranking_left_names_the_remedy(teacher_texts: None) -> None:
    write_rows("pairs.jsonl", [pair(0), pair(0, literal=2)])
    with pytest.raises(DataError, match=r"rank: no ranking.*'all_alike': 2.*Raise teacher.n"):
        ranked()


@pytest.mark.usefixtures("teacher_texts")
def test_rankings_of_a_critic_at_chance_are_refused_too(server: ChatServer) -> None:
    """brio_dpo once learned from a critic that `critique` would have refused."""
    with pytest.raises(DataError, match="'scripted' is not shown to be better than chance"):
        ranked(low=0.5)
    assert not server.asked
