"""A world with a known answer (docs/training.md, drawn by known_answer.py).

Teacher and critic are scripted, so that what the critic wants is known; the student, its training
and the pipeline are the real ones.

The teacher answers every third time with a comparison ("like a goose"), else without one. The
critic likes comparisons and texts about the same person; it has a lean to the first text and likes
long texts, both of known size. A small BART is grown from nothing to imitate the teacher, and then
learns from the critic.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dvc_pipeline import expanded, run, walk
from fake_endpoint import CRITIC_PROMPT, Body, ChatServer, chat, likes, shown
from quip.cli.skill_packs import merge_params
from quip.core.jsonl import read_rows, write_rows
from quip.core.params import read_params
from quip.core.records import Critique, GoldPair, Response
from quip.critics.debiasing import Debias, calibrated_preference, order_flips
from quip.evaluation.metrics import win_tie_rate
from quip.llm.requests import prompts
from quip.training import rounds
from repository import ROOT, SHIPPED_PARAMS

pytestmark = pytest.mark.slow
Record = Callable[[str, object], None]
"""pytest's `record_property`: what known_answer.py draws."""

PEOPLE = [
    "aunt",
    "baker",
    "boss",
    "cousin",
    "dentist",
    "doctor",
    "driver",
    "nurse",
    "pilot",
    "plumber",
    "sister",
    "teacher",
]
DEEDS = ["broke", "cleaned", "dropped", "found", "lost", "painted", "sold", "washed"]
THINGS = [
    "bike",
    "boat",
    "cake",
    "clock",
    "coat",
    "door",
    "drum",
    "lamp",
    "phone",
    "piano",
    "sofa",
    "tent",
]
ANIMALS = ["goose", "horse", "lion", "mouse", "otter", "tiger"]
PLACES = ["attic", "cellar", "garden", "kitchen", "station", "tunnel"]
LENGTHS = ("", "today", "today again", "today again really")
LEAN, A_WORD = 3.0, 0.9
"""The planted biases, in log-odds: for the first text shown, and for every word more."""
COMPARISON, SAME_PERSON = 4.0, 3.0

SPLITS = {"train": 150, "val": 6, "test": 160}
ELSEWHERE = ("reward", "duel", "control", "meaning", "safety", "evaluate", "report", "register")


def literals() -> list[tuple[str, str]]:
    """(person, sentence), no two alike, in an order of their own."""
    found = [(p, f"the {p} {d} the {t} this week") for p in PEOPLE for d in DEEDS for t in THINGS]
    random.Random(1).shuffle(found)
    return found


def teacher(body: Body) -> tuple[int, bytes]:
    """Three paraphrases; one text in three holds a comparison, whichever comes first."""
    literal = body["messages"][-1]["content"].removeprefix("Sentence: ")
    chance = random.Random(literal)
    start = literal.removesuffix(" this week")
    ends = [f"like a {chance.choice(ANIMALS)}", *(f"in the {p}" for p in chance.sample(PLACES, 2))]
    chance.shuffle(ends)
    texts = [f"{start} {end} {chance.choice(LENGTHS)}".strip() for end in ends]
    return chat("\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1)))


def taste(literal: str, text: str) -> float:
    same = re.match(r"the \w+", literal)
    assert same
    return COMPARISON * ("like a" in text) + SAME_PERSON * text.startswith(same[0])


def critic(body: Body) -> tuple[int, bytes]:
    literal, _, _ = shown(body)
    return likes(lambda text: taste(literal, text) + A_WORD * len(text.split()), LEAN)(body)


def either(body: Body) -> tuple[int, bytes]:
    asked = body["messages"][-1]["content"]
    return teacher(body) if asked.startswith("Sentence: ") else critic(body)


def make_student(folder: Path) -> None:
    """A BART of random weights that knows this world's words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    words = [*PEOPLE, *DEEDS, *THINGS, *ANIMALS, *PLACES]
    words += ["the", "this", "week", "like", "a", "in", "today", "again", "really"]
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    )
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(fast),
        d_model=64,
        **{"encoder_layers": 1, "decoder_layers": 2, "dropout": 0.0},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
        **{"encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 32},
        init_std=0.1,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)


ARMS = ("sft", "ft", "sd", "brio", "dpo", "brio_dpo")


def settings(base: Path, url: str) -> dict[str, Any]:
    learning = {"epochs": 3, "batch_size": 16, "learning_rate": 3.0e-4, "max_length": 24}
    return {
        "arms": [*ARMS],
        "endpoints": {"scripted": {"base_url": url, "model": "m", "concurrency": 8}},
        "prepare": {"limit": {**SPLITS, "ood": 1}, "near_duplicate": 100},
        "teacher": {
            **{"endpoint": "scripted", "n": 3, "train_inputs": None},
            **{"exemplars": 0, "prefixes": 1},
        },
        "imitation": {"per_input": 3, "copy_ratio": 100},
        "reward": {"pairs": ["gold"]},
        "audit": {"extra": []},
        "sft": {
            **{"base": str(base), "epochs": 25, "batch_size": 16},
            **{"learning_rate": 3.0e-3, "max_length": 24},
        },
        "critic": {"kind": "mcp", "endpoint": "scripted", "prompt": "critic", "samples": 1},
        "debias": {"method": "log_odds", "scale": 1.0, "per_word": -A_WORD},
        "candidates": {"k": 4, "best_of_inputs": 1, "best_of": 1, "max_new_tokens": 16},
        "critique": {"length_ratio": [0.8, 1.25], "unproven": "scripted"},
        "align": learning,
        "baseline": learning,
        "respond": {"splits": ["test"], "num_beams": 2, "max_new_tokens": 16},
        "judge": {
            **{"endpoints": ["scripted"], "learned": False, "prompt": "critic", "samples": 1},
            "splits": ["test"],
        },
    }


def write_data(folder: Path) -> None:
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    names = [split for split, count in SPLITS.items() for _ in range(count)]
    rows = [
        {"id": f"w{i:04}", "split": split, "emotion": "none", "text": text}
        for i, (split, (_, text)) in enumerate(zip(names, literals(), strict=False))
    ]
    (raw / "literals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_rows(raw / "gold.jsonl", gold())
    write_rows(raw / "attempts.jsonl", gold())  # read by a stage, used by none here
    shutil.copyfile(ROOT / "data" / "raw" / "exemplars.jsonl", raw / "exemplars.jsonl")
    (raw / "ood.jsonl").write_text('{"id": "o1", "text": "the wifi is down again today"}\n')


def gold() -> list[GoldPair]:
    """60 pairs whose better text is the one with a comparison, 40 whose better text says the same
    as the other in one to three words fewer."""
    pairs = []
    for i, (_, literal) in enumerate(literals()[400:500]):
        start = literal.removesuffix(" this week")
        plain, funny = f"{start} in the attic", f"{start} like a goose"
        kind, better, worse = "plain", funny, plain
        if i % 5 < 2:
            kind, better, worse = "length", funny, f"{funny} {LENGTHS[1 + i % 3]}"
        pairs.append(
            GoldPair(
                **{"id": f"g{i:03}", "kind": kind, "half": "held_out"},
                **{"literal": literal, "better": better, "worse": worse},
            )
        )
    tune = {"id": "g100", "half": "tune"}  # the learned critic, which nobody asks here, wants one
    return [*pairs, pairs[0].model_copy(update=tune)]


def result(arm: str) -> dict[str, Any]:
    """Win, tie and loss against the teacher, by the judge's debiased word."""
    debias = Debias(method="log_odds", scale=1.0, per_word=-A_WORD)
    rows = read_rows(f"data/verdicts/{arm}.jsonl", Critique)
    return win_tie_rate.summarise(
        [
            win_tie_rate.JudgedInput(
                r.input, calibrated_preference(r, debias), order_flips(r.forward, r.backward), 1.0
            )
            for r in rows
        ],
        tie_margin=0.05,
    )


def shape(arm: str) -> dict[str, float]:
    """Of an arm's test answers: share with a comparison, share about the right person, words."""
    rows = [r for r in read_rows(f"data/responses/{arm}.jsonl", Response) if r.split == "test"]
    same = [r.text.split()[:2] == r.literal.split()[:2] for r in rows]
    return {
        "comparison": sum("like a" in r.text for r in rows) / len(rows),
        "same_person": sum(same) / len(rows),
        "words": sum(len(r.text.split()) for r in rows) / len(rows),
    }


# ---- the world, run once, and what is changed in a copy of it


@pytest.fixture(scope="module")
def scripted() -> Iterator[ChatServer]:
    server = ChatServer()
    server.answer = either
    threading.Thread(target=server.http.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, scripted: ChatServer, migrated_database: Path
) -> Iterator[Path]:
    """The project after one round of every arm; it stays the working directory."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "critic.txt").write_text(CRITIC_PROMPT)
    (folder / "prompts" / "teacher.txt").write_text("--- user\nSentence: {literal}\n")
    make_student(folder / "base")
    write_data(folder)
    shutil.copyfile(migrated_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
            patch.delenv(name, raising=False)
        patch.setattr(prompts, "FOLDER", folder / "prompts")
        patch.setattr("quip.models.student.cores", lambda: 1)
        patch.chdir(folder)
        write_params(settings(folder / "base", scripted.url))
        rounds.write(1, ARMS)
        walk(expanded(1, ARMS), without=ELSEWHERE)
        yield folder


def write_params(changes: dict[str, Any], base: Path = SHIPPED_PARAMS) -> None:
    params = merge_params(read_params(base), changes)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture
def copied(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world to change."""
    folder = tmp_path / "copy"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    return folder


def again(stages: list[str], count: int = 1, **changes: Any) -> None:
    """Run these stages once more with other params."""
    write_params(changes, Path("params.yaml"))
    layout = expanded(count, ARMS)
    for name in stages:
        run(layout[name])


def judged(arm: str) -> list[str]:
    return [f"align@{arm}", f"respond@{arm}", f"judge@{arm}"]


def test_the_warm_start_imitates_a_teacher_that_is_seldom_funny(world: Path) -> None:
    found = shape("sft")
    assert found["same_person"] > 0.9
    assert found["comparison"] < 0.5


@pytest.mark.parametrize("arm", ["sd", "brio", "dpo", "brio_dpo"])
def test_every_arm_that_hears_the_critic_beats_more_imitation(
    world: Path, arm: str, record_property: Record
) -> None:
    """The intervals are apart, of the win-tie rate and of the score; and it is by comparisons."""
    fed, imitated = result(arm), result("ft")
    for name, found in ((arm, fed), ("ft", imitated)):
        record_property(name, json.dumps({**found, **shape(name)}))
    assert fed["ci95"][0] > imitated["ci95"][1]
    assert fed["score_ci95"][0] > imitated["score_ci95"][1]
    assert shape(arm)["comparison"] > shape("ft")["comparison"] + 0.3
    assert shape(arm)["same_person"] > 0.9


@pytest.mark.parametrize("arm", ["brio", "dpo"])
def test_two_rounds_in_the_same_epochs_are_no_worse_than_one(
    copied: Path, arm: str, record_property: Record
) -> None:
    """Within the interval: after one round there is little left to learn in this world."""
    once = result(arm)["score"]
    rounds.write(2, ARMS)
    first = [f"{name}@{arm}-1" for name in ("align", "candidates", "critique", "preferences")]
    again([*first, *judged(arm)], count=2)
    twice = result(arm)
    record_property("rounds", json.dumps([arm, once, twice["score"]]))
    assert twice["score_ci95"][1] >= once
    assert twice["score_ci95"][0] > result("ft")["score_ci95"][1]


def test_the_critic_s_taste_for_length_reaches_the_student_unless_it_is_taken_off(
    copied: Path, record_property: Record
) -> None:
    longer = {"align": {"epochs": 8}}
    again(judged("dpo"), **longer)
    before, guarded = shape("sft")["words"], shape("dpo")["words"]
    again(
        ["critique@sft", "preferences@sft", *judged("dpo")],
        **{"critique": {"length_ratio": [0.05, 20.0]}, "debias": {"per_word": 0.0}},
    )
    unguarded = shape("dpo")["words"]
    record_property("words", json.dumps([before, guarded, unguarded]))
    assert guarded <= before + 0.1
    assert unguarded > before + 0.25  # 0.29 on an EPYC with AVX-512, 0.3 and more with AMX


def test_the_audit_finds_the_planted_biases(copied: Path, record_property: Record) -> None:
    """The lean of 3 flips the 40 pairs whose texts differ by length alone (0.9 to 2.7) and none of
    the others (4); on those 40 the critic likes the longer text until a little more than that is
    taken off (exactly that would leave ties)."""
    for per_word, length_bias, agreement in ((0.0, 0.4, 0.6), (-A_WORD - 0.1, 0.0, 1.0)):
        again(["audit"], audit={"per_kind": None}, debias={"per_word": per_word})
        found = json.loads(Path("data/metrics/critic.json").read_text())
        planted = [0.4, length_bias, agreement]
        kept = [found["position_bias"], found["length_bias"], found["agreement"], *found["ci95"]]
        record_property("audit", json.dumps([per_word, planted, kept]))
        assert found["position_bias"] == pytest.approx(0.4)
        assert found["length_bias"] == pytest.approx(length_bias)
        assert found["ci95"][0] <= agreement <= found["ci95"][1]
        assert found["first_share"] == pytest.approx(0.6 * 0.5 + 0.4)
