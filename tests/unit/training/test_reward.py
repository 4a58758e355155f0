"""Reward model: its training pairs, its loss, its training on a tiny encoder, and its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from quip.core.jsonl import write_json, write_rows
from quip.critics import critic_kinds, debiasing, reward_model
from quip.critics.comparison import Comparison
from quip.critics.critic_settings import CriticParams
from quip.critics.debiasing import Debias
from quip.data.graded_pairs import GradedPair
from quip.runtime.errors import DataError, WeightsError
from quip.stages import reward as stage
from quip.training import corruptions, reward
from quip.training.reward import RewardParams
from stage_options import options

PARAMS = RewardParams(
    pairs=["gold"],
    base="tiny",
    spoiled=True,
    ranking_weight=0.0,
    epochs=12,
    batch_size=4,
    learning_rate=2e-3,
    seed=1,
    precision="fp32",
)
WORDS = ("bus", "cat", "soup", "hat", "dog", "tea", "car", "key")
PAIRS = [
    GradedPair(
        id=f"g{i}",
        half="tune",
        literal=f"I lost my {word}.",
        better=f"My {word} has eloped with a stranger.",
        worse=f"I lost it, the {word}, and it was lost.",
    )
    for i, word in enumerate(WORDS)
]


TEXTS = [(pair.literal, text) for pair in PAIRS for text in (pair.better, pair.worse)]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random little BERT with a word-level tokenizer of the pairs above."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    texts = [text for p in PAIRS for text in (p.literal, p.better, p.worse)]
    split = pre_tokenizers.Whitespace()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted(words)]
    tokenizer = Tokenizer(models.WordLevel({n: i for i, n in enumerate(names)}, "[UNK]"))
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(names),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def encoder(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(reward, "encoder_source", lambda base: tiny_encoder)
    return tiny_encoder


@pytest.fixture
def grown(encoder: Path) -> reward_model.RewardModel:
    return reward.train(PAIRS, PARAMS)


def comparison(a: str, b: str, word: str = "bus") -> Comparison:
    return Comparison("x", "test", f"I lost my {word}.", "dpo", "sft", a, b)


# ---- training pairs


@pytest.mark.parametrize("corrupt", corruptions.CORRUPTIONS)
def test_a_corruption_changes_the_text(corrupt: Callable[[str, str, Random], str]) -> None:
    for pair in PAIRS:
        assert corrupt(pair.better, pair.literal, Random(1)) != pair.better


def test_an_off_topic_text_belongs_to_another_literal() -> None:
    others = [pair.better for pair in PAIRS]
    drawn = {corruptions.off_topic(others[0], others, Random(i)) for i in range(50)}
    assert drawn == set(others[1:])


def test_each_pair_is_trained_on_as_it_is_and_with_two_corruptions() -> None:
    rows = reward.weighted_pairs(PAIRS, True, Random(1))
    assert len(rows) == 3 * len(PAIRS)
    for pair in PAIRS:
        worse = [row.worse for row in rows if row.better == pair.better]
        assert len(worse) == 3
        assert pair.worse in worse
        assert pair.better not in worse


# ---- the loss and the training


def test_the_loss_is_the_weighted_negative_log_odds_probability() -> None:
    better, worse = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    loss = reward.pairwise_loss(better, worse, torch.tensor([1.0, 3.0]))
    by_hand = (math.log(1 + math.exp(-1)) + 3 * math.log(1 + math.exp(2))) / 2
    assert loss.item() == pytest.approx(by_hand, abs=1e-6)
    even = reward.pairwise_loss(torch.zeros(3), torch.zeros(3), torch.ones(3))
    assert even.item() == pytest.approx(math.log(2))


def test_texts_of_a_batch_are_ranked_by_their_grades_within_one_scale() -> None:
    rewards = torch.tensor([1.0, 0.0, 0.5, 9.0, -9.0])
    grades = torch.tensor([3.0, 1.0, math.nan, 2.0, 50.0])
    groups = torch.tensor([0, 0, 0, 0, 1])

    def cost(gap: float) -> float:
        return math.log(1 + math.exp(-gap))

    # grades 3 over 1 by 2, 3 over 2 by 1, 2 over 1 by 1; what has none or another scale is left out
    by_hand = (2 * cost(1.0) + cost(1.0 - 9.0) + cost(9.0)) / 4
    found = reward.ranking_loss(rewards, grades, groups)
    assert found.item() == pytest.approx(by_hand, abs=1e-5)
    assert reward.ranking_loss(rewards, grades * math.nan, groups).item() == 0.0


def test_the_ranking_term_enters_with_its_weight_and_votes_have_none() -> None:
    values = torch.tensor([0.3, -0.2, 0.1, 0.4])
    pairs = [graded_pair(2.0, 1.0), PAIRS[1]]
    batch = reward.weighted_pairs(pairs, False, Random(1))
    alone, half, whole = (reward.batch_loss(batch, values, w).item() for w in (0.0, 0.5, 1.0))
    assert half > alone
    assert whole - alone == pytest.approx(2 * (half - alone), abs=1e-6)
    votes = reward.weighted_pairs(PAIRS[:2], False, Random(1))
    assert reward.batch_loss(votes, values, 1.0) == reward.batch_loss(votes, values, 0.0)


def graded_pair(better: float, worse: float, source: str = "file") -> GradedPair:
    return PAIRS[0].model_copy(update={"grades": (better, worse), "source": source})


def test_a_pair_weighs_as_much_as_its_grades_differ() -> None:
    pairs = [
        graded_pair(1.0, 0.0),
        graded_pair(4.0, 1.0),
        PAIRS[1],
        graded_pair(90.0, 10.0, "in percent"),
    ]
    assert reward.gap_weights(pairs) == [0.5, 1.5, 1.0, 1.0]
    rows = reward.weighted_pairs(pairs, False, Random(1))
    assert sorted(row.weight for row in rows) == [0.5, 1.0, 1.0, 1.5]


def test_pairs_of_equal_grades_have_weight_one() -> None:
    assert reward.gap_weights([graded_pair(2.0, 2.0), graded_pair(1.0, 1.0)]) == [1.0, 1.0]


def test_a_wide_gap_is_learned_where_votes_contradict_each_other(encoder: Path) -> None:
    wide = PAIRS[0].model_copy(update={"grades": (3.0, 0.0)})
    narrow = wide.model_copy(
        update={"better": wide.worse, "worse": wide.better, "grades": (0.1, 0.0)}
    )
    plain = PARAMS.model_copy(update={"spoiled": False})
    for pairs in ([wide, narrow], [narrow, wide]):
        assert reward.pair_accuracies(reward.train(pairs, plain), [wide, narrow]) == [1.0, 0.0]


def test_bases_are_pinned_models_local_folders_or_hub_ids(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reward.weights, "path", lambda name: Path("pinned", name))
    assert reward.encoder_source("all-minilm-l6-v2") == Path("pinned", "all-minilm-l6-v2")
    assert reward.encoder_source(str(tiny_encoder)) == str(tiny_encoder)
    assert reward.encoder_source("owner/model") == "owner/model"
    with pytest.raises(WeightsError, match="no such folder"):
        reward.encoder_source("./not/there")


def test_an_untrained_model_prefers_nothing(encoder: Path) -> None:
    model = reward_model.RewardModel(encoder).eval()
    assert reward_model.rewards(model, [("a", "b"), ("I lost my bus.", "bus")]) == [0.0, 0.0]


def test_it_learns_its_pairs(grown: reward_model.RewardModel) -> None:
    assert reward.pair_accuracies(grown, PAIRS) == [1.0] * len(PAIRS)
    turned = [p.model_copy(update={"better": p.worse, "worse": p.better}) for p in PAIRS]
    assert reward.pair_accuracies(grown, turned) == [0.0] * len(PAIRS)


def test_the_same_seed_gives_the_same_model(grown: reward_model.RewardModel) -> None:
    again = reward.train(PAIRS, PARAMS)
    other = reward.train(PAIRS, PARAMS.model_copy(update={"seed": 2}))
    assert torch.equal(again.head.weight, grown.head.weight)
    assert not torch.equal(other.head.weight, grown.head.weight)


def test_every_weight_moves_but_the_unused_pooler(
    grown: reward_model.RewardModel, encoder: Path
) -> None:
    before = reward_model.RewardModel(encoder).state_dict()
    still = {name for name, value in grown.state_dict().items() if torch.equal(value, before[name])}
    assert still == {name for name in before if "pooler" in name or "position_ids" in name}


def test_a_saved_model_gives_the_same_rewards(
    grown: reward_model.RewardModel, tmp_path: Path
) -> None:
    reward_model.save(grown, tmp_path / "m")
    rows = TEXTS
    assert reward_model.rewards(reward_model.load(tmp_path / "m"), rows) == reward_model.rewards(
        grown, rows
    )
    assert {p.suffix for p in (tmp_path / "m").iterdir()} <= {".safetensors", ".json", ".txt"}
    assert set(load_file(tmp_path / "m" / reward_model.HEAD)) == {"weight"}


def test_the_order_and_the_batch_change_nothing(grown: reward_model.RewardModel) -> None:
    rows = TEXTS
    alone = [reward_model.rewards(grown, [row])[0] for row in rows]
    assert reward_model.rewards(grown, rows[::-1], batch_size=5) == pytest.approx(
        alone[::-1], abs=1e-5
    )


# ---- its answers


LEARNED = CriticParams(kind="learned", endpoint="none", prompt="none", samples=1)


def test_swapping_the_texts_gives_exactly_the_complement(
    grown: reward_model.RewardModel, tmp_path: Path
) -> None:
    reward_model.save(grown, tmp_path)
    pair = PAIRS[0]
    rows = critic_kinds.ask(
        LEARNED,
        tmp_path,
        [comparison(pair.better, pair.worse), comparison(pair.worse, pair.better)],
        "test",
    ).rows
    debias = Debias(method="log_odds", scale=30.0, per_word=-5.0)
    here, there = (debiasing.calibrated_preference(row, debias) for row in rows)
    assert here is not None
    assert there is not None
    assert here > 0.6
    assert here + there == pytest.approx(1.0, abs=1e-12)
    assert debiasing.order_flips(rows[0].forward, rows[0].backward) is False
    assert {row.judge for row in rows} == {"learned"}


def test_a_text_against_itself_is_a_tie(grown: reward_model.RewardModel, tmp_path: Path) -> None:
    reward_model.save(grown, tmp_path)
    row = critic_kinds.ask(LEARNED, tmp_path, [comparison("same", "same")], "test").rows[0]
    assert (row.forward.p_first, row.forward.source) == (0.5, "identical")


def test_a_learned_critic_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no learned critic here\. Run `dvc repro reward`"):
        critic_kinds.ask(LEARNED, tmp_path, [comparison("a", "b")], "test")


# ---- the stage


def run_stage(wanted: bool = True) -> dict[str, object]:
    write_rows("learn.jsonl", PAIRS)
    write_json("wanted.json", {"wanted": wanted})
    stage.main(options(pairs="learn.jsonl", wanted="wanted.json", model="m", metrics="m.json"))
    found: dict[str, object] = json.loads(Path("m.json").read_text(encoding="utf-8"))
    return found


def test_the_stage_saves_the_model_of_its_recipe(
    encoder: Path, grown: reward_model.RewardModel, project: Callable[..., Path]
) -> None:
    project(reward=PARAMS.model_dump())
    found = run_stage()
    assert (found["pairs"], found["fitted"], found["epochs"]) == (len(PAIRS), 1.0, 12)
    assert torch.equal(reward_model.load("m").head.weight, grown.head.weight)


def test_an_unwanted_critic_leaves_a_note(project: Callable[..., Path]) -> None:
    project()
    assert run_stage(wanted=False) == {"pairs": 0}
    assert "critic.kind" in Path("m/NOT_TRAINED").read_text(encoding="utf-8")
