"""The student on disk: loading, saving, its digest, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BartForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from quip.models import student
from quip.runtime.errors import ParamsError, WeightsError


@pytest.fixture
def folder(tiny_student: Path, tmp_path: Path) -> Path:
    """A copy of the tiny student that a test may damage."""
    return Path(shutil.copytree(tiny_student, tmp_path / "student"))


def refusal(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        student.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")


def test_the_prompt_and_completion_join_to_one_plain_text() -> None:
    assert student.prompt("I ran.") + student.completion("My legs fled.") == (
        "Literal: I ran.\nFunny: My legs fled."
    )


def test_a_loaded_student_is_float32_and_ready_to_generate(folder: Path) -> None:
    loaded = student.load(folder)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.tokenizer.eos_token == "</s>"


def test_what_was_saved_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    loaded = student.load(folder)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter += 0.25
    student.save(loaded, tmp_path / "models" / "dpo")
    again = student.load(tmp_path / "models" / "dpo")
    expected, found = loaded.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    text = "Literal: I missed my bus.\nFunny:"
    assert again.tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]


def test_saving_replaces_the_old_folder_whole(folder: Path, tmp_path: Path) -> None:
    out, left = tmp_path / "models" / "dpo", tmp_path / "models" / ".dpo.tmp"
    for old in (out / "old.safetensors", left / "cut-off.safetensors"):
        old.parent.mkdir(parents=True)
        old.write_bytes(b"old")
    student.save(student.load(folder), out)
    assert [path.name for path in out.glob("*.safetensors")] == ["model.safetensors"]
    assert [path.name for path in out.parent.iterdir()] == ["dpo"]


def test_a_student_computed_in_bf16_is_saved_in_float32(folder: Path, tmp_path: Path) -> None:
    loaded = student.load(folder, "bf16")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    student.save(loaded, tmp_path / "out")
    raw = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in raw.parameters()} == {torch.float32}


@pytest.mark.parametrize(("precision", "bf16"), [("fp32", False), ("bf16", True)])
def test_a_given_precision_is_used(precision: student.Precision, bf16: bool) -> None:
    assert student.use_bf16(precision) is bf16


def test_the_digest_is_that_of_the_weights_and_of_nothing_else(folder: Path) -> None:
    before = student.weights_digest(folder)
    edit(folder / "config.json", note="changed")
    (folder / "training.log").write_text("x")
    assert student.weights_digest(folder) == before
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    changed = student.weights_digest(folder)
    weights.rename(folder / "other.safetensors")
    assert len({before, changed, student.weights_digest(folder)}) == 3


def test_a_tokenizer_without_padding_pads_with_its_end(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).pad_token_id is None
    loaded = student.load(folder)
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id


# ---- refused


def test_a_missing_folder_is_refused() -> None:
    message = refusal(Path("models/nothing/here"))
    assert message.startswith("student base 'models/nothing/here': no such folder. Wanted: ")


def test_a_student_is_of_the_family_its_configuration_says(
    tiny_student: Path, tiny_bart: Path
) -> None:
    """Once BART was loaded as a causal model of half its weights, the rest at random."""
    causal, bart = student.load(tiny_student), student.load(tiny_bart)
    assert (causal.family, bart.family) == ("causal", "encoder-decoder")
    assert (causal.context, bart.context) == (128, 128)
    assert causal.source("I ran.") == "Literal: I ran.\nFunny:"
    assert bart.source("I ran.") == "I ran."


def test_trl_refuses_an_encoder_decoder(tiny_student: Path, tiny_bart: Path) -> None:
    student.check_causal(student.load(tiny_student))
    with pytest.raises(WeightsError, match="an encoder-decoder, which TRL trains wrongly"):
        student.check_causal(student.load(tiny_bart))


def test_t5_has_no_end_of_positions(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    config = T5Config(
        vocab_size=300,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    loaded = student.load(folder)
    assert (loaded.family, loaded.context) == ("encoder-decoder", None)
    student.check_length(loaded, 100_000, "sft.max_length")


def test_an_encoder_decoder_generates_as_asked_and_not_by_its_old_task(
    tiny_bart: Path, tmp_path: Path
) -> None:
    model = BartForConditionalGeneration.from_pretrained(tiny_bart)
    model.generation_config.update(num_beams=4, no_repeat_ngram_size=3, length_penalty=2.0)
    model.save_pretrained(tmp_path / "old")
    AutoTokenizer.from_pretrained(tiny_bart).save_pretrained(tmp_path / "old")
    config = student.load(tmp_path / "old").model.generation_config
    assert config.no_repeat_ngram_size is None
    assert (config.decoder_start_token_id, config.eos_token_id) == (2, 2)


def test_more_tokens_than_the_context_holds_are_refused_by_the_key(tiny_student: Path) -> None:
    loaded = student.load(tiny_student)
    student.check_length(loaded, 128, "align.max_length")
    with pytest.raises(ParamsError) as caught:
        student.check_length(loaded, 129, "align.max_length")
    assert str(caught.value) == (
        "params.yaml: key 'align.max_length' is 129, but the student's context holds 128 tokens. "
        "Lower it, or choose another student (sft.base)."
    )


def test_a_tokenizer_that_cannot_end_a_text_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert refusal(folder) == f"student '{folder}': its tokenizer has no end-of-sequence token."


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    assert "model.safetensors" in refusal(folder)


def test_code_that_comes_with_a_model_is_never_run(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass Config: ...\n")
    auto = {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"}
    edit(folder / "config.json", model_type="mine", auto_map=auto)
    assert "cannot be loaded" in refusal(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"cut off"),
        ("config.json", b"{not json"),
        ("config.json", b'{"model_type": "no_such_model"}'),
    ],
)
def test_a_damaged_file_is_one_clear_line(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"student '{folder}' cannot be loaded: ")


def test_a_folder_without_a_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "NOT_TRAINED").write_text("Add 'ft' to `arms`.")
    assert refusal(tmp_path).startswith(f"student '{tmp_path}' cannot be loaded: ")
