"""Packed rows: the numbers of plain rows, for fewer operations."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from quip.core.records import Preference, TrainingPair
from quip.models import student
from quip.models.likelihood import Texts, count_tokens, forward, pad_rows
from quip.models.packing import Text, bin_pack, pack_layout, packed_attention_mask, supports_packing
from quip.training.dpo import trl_rows
from quip.training.sft import prompt_completion
from quip.training.trl_trainers import PackedDpoTrainer, PackedSftTrainer
from tiny_models import byte_bpe

sys.path.insert(0, str(Path(__file__).parents[3] / "bench"))
from flops import count_operations

GOLD = Path(__file__).parents[3] / "data" / "raw" / "gold.jsonl"
BATCH = 8
VOCABULARY = 2150


# ---- rows


def test_texts_of_one_prompt_share_it_and_see_nothing_of_each_other() -> None:
    texts = [Text((1, 2), (3, 4)), Text((9,), (8, 7, 6)), Text((1, 2), (5,))]
    layout = pack_layout(texts)
    tokens = layout.ids.flatten().tolist()
    assert sorted(t for t, g in zip(tokens, layout.group.flatten(), strict=True) if g >= 0) == [
        *(1, 2, 3, 7, 8, 9)
    ], "each prompt once, and no text's last token"
    reads = [[tokens[place] for place in places] for places in layout.scored]
    assert reads == [[2, 3], [9, 8, 7], [2]]
    mask = packed_attention_mask(layout.group, layout.part).flatten(0, 1)
    width = layout.ids.shape[1]
    for places, prefix in zip(layout.scored, ([1, 2, 3], [9, 8, 7], [1, 2]), strict=True):
        row, column = divmod(places[-1], width)
        seen = mask[row, column].nonzero().flatten().tolist()
        assert [int(layout.ids[row, place]) for place in seen] == prefix


def test_positions_count_from_each_text_s_own_prompt() -> None:
    layout = pack_layout([Text((1, 2), (3, 4, 5)), Text((1, 2), (6, 7))])
    assert layout.ids.tolist() == [[1, 2, 3, 4, 6]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 2]]


def test_rows_have_nearly_equal_lengths() -> None:
    sizes = [50, 40, 30, 30, 20, 20, 10]
    rows = bin_pack(sizes, cost=0.01)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    assert len(rows) > 1
    lengths = [sum(sizes[i] for i in row) for row in rows]
    assert sum(lengths) / (len(rows) * max(lengths)) > 0.9
    assert len(bin_pack(sizes, cost=0.0)) == 1, "without attention one row has no padding at all"


def test_a_model_that_counts_distances_by_place_is_not_packed(tiny_student: Path) -> None:
    from transformers import BloomConfig, BloomForCausalLM, MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    small = {"vocab_size": 99, "hidden_size": 32}
    learned = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2))
    assert supports_packing(student.load(tiny_student).model)
    assert supports_packing(learned), "learned positions are given, like any"
    assert not supports_packing(BloomForCausalLM(BloomConfig(n_layer=2, n_head=2, **small)))
    assert not supports_packing(MambaForCausalLM(MambaConfig(num_hidden_layers=2, **small)))


# ---- against TRL's own trainers


def gold(count: int) -> list[Preference]:
    rows = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()[:count]]
    return [
        Preference(
            input=str(i),
            literal=row["literal"],
            chosen=row["better"],
            rejected=row["worse"],
            confidence=0.9,
        )
        for i, row in enumerate(rows)
    ]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Of words and their parts, so that a text is about as many tokens as SmolLM2 makes of it."""
    texts = [text for p in gold(2000) for text in (p.literal, p.chosen, p.rejected)]
    made = byte_bpe(VOCABULARY, ["<unk>", "</s>"], ["Literal: Funny:", *texts])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


@pytest.fixture
def proportioned_student(tokenizer: Any) -> Iterator[Callable[[], student.Student]]:
    """Students whose parts cost as SmolLM2-135M's: the head 0.27 of the layers, attention little.
    All with the same weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )

    def make() -> student.Student:
        torch.manual_seed(0)
        return student.Student(LlamaForCausalLM(config), tokenizer)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make
    torch.set_num_threads(threads)


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """Plain TRL, made to run on a CPU."""
    shared = {"output_dir": str(folder), "report_to": "none", "use_cpu": True, "bf16": False}
    shared |= {"per_device_train_batch_size": BATCH, "max_length": 256, "disable_tqdm": True}
    shared |= {"gradient_checkpointing": False, "seed": 1, "data_seed": 1, "learning_rate": 1e-3}
    return {**shared, "logging_steps": 1, "save_strategy": "no", "num_train_epochs": 2, **more}


def dpo(kind: Any, make: Callable[[], student.Student], folder: Path, **more: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    one, plain = make(), kind is not PackedDpoTrainer
    return kind(
        model=one.model,
        ref_model=make().model if plain else None,
        args=DPOConfig(**settings(folder, precompute_ref_log_probs=not plain, **more)),
        train_dataset=Dataset.from_list(trl_rows(gold(BATCH + 3))),
        processing_class=one.tokenizer,
    )


def sft(kind: Any, make: Callable[[], student.Student], folder: Path) -> Any:
    from datasets import Dataset
    from trl import SFTConfig

    one = make()
    rows = [
        TrainingPair(input=p.input, literal=p.literal, paraphrase=p.chosen) for p in gold(BATCH + 3)
    ]
    return kind(
        model=one.model,
        args=SFTConfig(**settings(folder, completion_only_loss=True)),
        train_dataset=Dataset.from_list(prompt_completion(rows)),
        processing_class=one.tokenizer,
    )


def curve(trainer: Any) -> list[dict[str, float]]:
    trainer.train()
    skip = ("time", "runtime", "second", "total", "flos", "train_loss")
    return [
        {k: v for k, v in row.items() if not any(word in k for word in skip)}
        for row in trainer.state.log_history
        if "loss" in row
    ]


@pytest.mark.parametrize(
    "terms", [["sigmoid"], ["ipo", "sft"], ["sigmoid_norm"]], ids=lambda terms: "+".join(terms)
)
def test_dpo_has_trl_s_loss_curve_and_figures(
    terms: list[str], proportioned_student: Any, tmp_path: Path
) -> None:
    """Same batches in the same order, to 1e-4 in every figure that TRL logs, after four steps."""
    from trl import DPOTrainer

    more = {"loss_type": terms, "loss_weights": [1.0] * len(terms)}
    theirs = curve(dpo(DPOTrainer, proportioned_student, tmp_path / "a", **more))
    ours = curve(dpo(PackedDpoTrainer, proportioned_student, tmp_path / "b", **more))
    assert len(theirs) == len(ours) == 4
    assert len({row["loss"] for row in ours}) == 4
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-4, rel=1e-4)


def test_sft_has_trl_s_loss_curve_and_figures(proportioned_student: Any, tmp_path: Path) -> None:
    from trl import SFTTrainer

    theirs = curve(sft(SFTTrainer, proportioned_student, tmp_path / "a"))
    ours = curve(sft(PackedSftTrainer, proportioned_student, tmp_path / "b"))
    assert len(ours) == 4
    assert ours[-1]["loss"] < ours[0]["loss"]
    for row, expected in zip(ours, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-4, rel=1e-4)


def whole(make: Callable[[], Any]) -> int:
    """Operations of making the trainer (with the reference's pass) and of its training."""
    return count_operations(lambda: make().train())


def test_dpo_takes_1_6_times_fewer_operations_than_trl(
    proportioned_student: Any, tmp_path: Path
) -> None:
    """Of a whole training of two epochs, the reference's pass included."""
    from trl import DPOTrainer

    theirs = whole(lambda: dpo(DPOTrainer, proportioned_student, tmp_path / "a"))
    ours = whole(lambda: dpo(PackedDpoTrainer, proportioned_student, tmp_path / "b"))
    assert theirs / ours >= 1.6


def test_sft_takes_1_2_times_fewer_operations_than_trl(
    proportioned_student: Any, tmp_path: Path
) -> None:
    from trl import SFTTrainer

    theirs = whole(lambda: sft(SFTTrainer, proportioned_student, tmp_path / "a"))
    ours = whole(lambda: sft(PackedSftTrainer, proportioned_student, tmp_path / "b"))
    assert theirs / ours >= 1.2


def test_an_encoder_decoder_reads_a_literal_once_for_all_its_candidates(tiny_bart: Path) -> None:
    """BRIO's forward pass over k texts is one encoder and k decoders: against a literal a text, k -
    1 encoders are saved, exactly."""
    one, k = student.load(tiny_bart), 4
    literals = [p.literal for p in gold(3)]
    texts = [f"{text} again" for text in literals for _ in range(k)]
    rows = [i for i in range(len(literals)) for _ in range(k)]

    def forward_operations(batch: Texts) -> int:
        with torch.no_grad():
            return count_operations(lambda: forward(one, batch, 128))

    shared = forward_operations(Texts(literals, rows, texts))
    repeated = forward_operations(Texts([literals[i] for i in rows], range(len(rows)), texts))
    ids = pad_rows([one.tokenizer(text)["input_ids"] for text in literals], 1)
    with torch.no_grad():
        encoder = count_operations(lambda: one.model.get_encoder()(input_ids=ids))
    assert encoder > 0
    assert repeated - shared == (k - 1) * encoder


def test_a_causal_student_reads_a_literal_once_for_all_its_candidates(tiny_student: Path) -> None:
    """Tokens through the layers: each literal's prompt once, and all tokens of the texts but their
    last."""
    one = student.load(tiny_student)
    literals, texts = ["I ran.", "It rained."], ["my legs fled", "ran", "the sky cried", "wet"]
    seen: list[int] = []
    one.model.model.layers[0].register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape[:2].numel())
    )
    forward(one, Texts(literals, [0, 0, 1, 1], texts), 128)
    prompts = sum(len(one.tokenizer(student.prompt(literal))["input_ids"]) for literal in literals)
    tokens = [count_tokens(one, literals[i // 2], text, 128) - 1 for i, text in enumerate(texts)]
    assert prompts + sum(tokens) <= seen[-1] < 1.3 * (prompts + sum(tokens))
