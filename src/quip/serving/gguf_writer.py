"""GGUF writer: a causal student as a GGUF file for llama.cpp, Ollama and the embedded engine.

Supports llama architectures with a byte-level BPE tokenizer (SmolLM2 and related models). Other
models are refused: a file that loads and computes something slightly different is worse than none.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from quip.runtime.errors import DataError

Precision = Literal["f16", "f32"]

PRE_TOKENIZERS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}
"""Kinds of a tokenizer's pre-tokenizer steps -> llama.cpp's name for them."""


def write(folder: Path, file: Path, name: str, precision: Precision) -> None:
    """Write the model that `save_pretrained` left in `folder` to `file`.

    Norms stay float32, as llama.cpp requires. Raises DataError for another architecture, another
    kind of tokenizer or scaled rotary positions.
    """
    import gguf

    logging.getLogger("gguf").setLevel(logging.WARNING)
    config = read_json(folder / "config.json")
    check_architecture(config)
    tokenizer = read_json(folder / "tokenizer.json")
    split = pre_tokenizer(tokenizer)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name(name)
    writer.add_file_type(
        gguf.LlamaFileType.MOSTLY_F16 if precision == "f16" else gguf.LlamaFileType.ALL_F32
    )
    add_shape(writer, config)
    add_tokenizer(writer, folder, config, tokenizer, split)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for key, values in tensors(folder):
        if key == "lm_head.weight" and config["tie_word_embeddings"]:
            continue  # without an output matrix llama.cpp uses the embeddings
        wide = precision == "f32" or values.ndim == 1
        found = names.get_name(key, (".weight", ".bias"))
        if found is None:
            raise DataError(
                f"no GGUF of this student: tensor '{key}' does not belong to a plain llama. "
                "Export it without --gguf."
            )
        writer.add_tensor(
            found, permute_rotary_rows(key, values, config).astype("f4" if wide else "f2")
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def check_architecture(config: Mapping[str, Any]) -> None:
    kind, rope = config["model_type"], config["rope_parameters"]
    if kind != "llama" or rope["rope_type"] != "default":
        raise DataError(
            f"no GGUF of this student: it is a '{kind}' with rope type '{rope['rope_type']}', and "
            "only a plain llama (as SmolLM2) can be written. Export it without --gguf."
        )


def pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for the tokenizer's pre-tokenizer. Raises DataError for an unknown one."""
    top = tokenizer["pre_tokenizer"] or {}
    steps = top.get("pretokenizers", [top])
    kinds = tuple(step.get("type", "none") for step in steps)
    if tokenizer["model"]["type"] != "BPE" or kinds not in PRE_TOKENIZERS:
        raise DataError(
            f"no GGUF of this student: its tokenizer ({tokenizer['model']['type']} after "
            f"{', '.join(kinds)}) has no name in llama.cpp. Export it without --gguf."
        )
    return PRE_TOKENIZERS[kinds]


def add_shape(writer: Any, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def add_tokenizer(
    writer: Any,
    folder: Path,
    config: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    split: str,
) -> None:
    """Tokens in the order of their ids, merges, special tokens and the chat template."""
    import gguf

    size = config["vocab_size"]
    tokens = [f"[PAD{number}]" for number in range(size)]
    kinds = [gguf.TokenType.UNUSED] * size
    for text, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        special = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], special
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    vocabulary = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    vocabulary.add_special_token.clear()  # add_bos_token is set above: the prompt gets no token
    vocabulary.add_to_gguf(writer, quiet=True)


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of every tensor, one in memory at a time."""
    from safetensors import safe_open

    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            for key in weights.keys():  # noqa: SIM118 (no mapping)
                yield key, weights.get_tensor(key)


def permute_rotary_rows(key: str, values: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Query and key rows in llama.cpp's rotary order; other tensors unchanged.

    llama.cpp keeps rotated pairs in adjacent rows, transformers the two halves of a head one after
    the other.
    """
    counts = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for part, count in counts.items():
        if part in key:
            heads = config[count]
            halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
            return halves.swapaxes(1, 2).reshape(values.shape)
    return values
