"""Fixtures that several test files share."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from quip.cli import try_run
from quip.cli.skill_packs import overlaid
from quip.core.params import read_params
from quip.llm.requests import prompts
from quip.tracking import mlflow_store

PROJECT = Path(__file__).parent.parent
LITERALS = PROJECT / "data" / "raw" / "literals.jsonl"
SHIPPED_PARAMS = PROJECT / "params.yaml"
Body = dict[str, Any]


class ChatServer:
    """A real chat endpoint on the loopback with scripted answers.

    `answer(body)` gives the status and the bytes for one call; `asked` and `keys` keep every body
    and every Authorization header in the order in which they came.
    """

    def __init__(self) -> None:
        self.asked: list[Body] = []
        self.keys: list[str | None] = []
        self.answer: Callable[[Body], tuple[int, bytes]] = lambda body: chat("1. a\n2. b")
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                script.asked.append(body)
                script.keys.append(self.headers["Authorization"])
                status, content = script.answer(body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def chat(text: str | None, logprobs: dict[str, float] | None = None) -> tuple[int, bytes]:
    """A well-formed reply; `logprobs` are the alternatives at its first token."""
    choice: Body = {"index": 0, "finish_reason": "stop"}
    choice["message"] = {"role": "assistant", "content": text}
    if logprobs is not None:
        top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": top}]}
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "choices": [choice],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
    return 200, json.dumps(reply).encode()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    script = ChatServer()
    threading.Thread(target=script.http.serve_forever, args=(0.01,), daemon=True).start()
    yield script
    script.http.shutdown()
    script.http.server_close()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`project(section={"key": value})` makes a folder with the shipped params.yaml, changed so,
    the working directory; called again it only writes params.yaml anew."""
    folder = tmp_path / "project"
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)

    def make(**changes: Any) -> Path:
        folder.mkdir(exist_ok=True)
        params = overlaid(read_params(SHIPPED_PARAMS), changes)
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture
def scripted_project(server: ChatServer, project: Callable[..., Path]) -> Callable[..., Path]:
    """As `project`, with the scripted server as teacher, critic and judge (model "m")."""
    roles: dict[str, Any] = {
        "endpoints": {"scripted": {"base_url": server.url, "model": "m", "concurrency": 1}},
        "teacher": {"endpoint": "scripted"},
        "critic": {"kind": "mcp", "endpoint": "scripted", "prompt": "critic", "samples": 3},
        "judge": {"endpoints": ["scripted"], "learned": False, "prompt": "critic", "samples": 3},
    }
    return lambda **changes: project(**overlaid(roles, changes))


def options(**paths: object) -> list[str]:
    """A stage's command line: `options(out="x")` is ["--out", "x"]."""
    return [part for name, path in paths.items() for part in (f"--{name}", str(path))]


CRITIC_PROMPT = "--- user\nLiteral: {literal}\n1: {first}\n2: {second}\n"


@pytest.fixture
def critic_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `critic` prompt whose texts `shown` can read back, whatever the shipped one says."""
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "critic.txt").write_text(CRITIC_PROMPT, encoding="utf-8")
    monkeypatch.setattr(prompts, "FOLDER", folder)


def shown(body: Body) -> tuple[str, str, str]:
    """The literal, the first and the second text that a critic was shown in one call."""
    found = re.fullmatch(
        r"Literal: (.*)\n1: (.*)\n2: (.*)", body["messages"][-1]["content"], re.DOTALL
    )
    assert found, body
    return found[1], found[2], found[3]


def likes(score: Callable[[str], float], lean: float = 0.0) -> Callable[[Body], tuple[int, bytes]]:
    """A scripted critic: its log-odds for the first text are score(first) - score(second) + lean.

    It answers with log-probabilities where asked for, else with the likelier choice.
    """

    def answer(body: Body) -> tuple[int, bytes]:
        _, first, second = shown(body)
        odds = score(first) - score(second) + lean
        p = 1 / (1 + math.exp(-odds))
        text = "1" if p >= 0.5 else "2"
        logprobs = {"1": math.log(p), "2": math.log(1 - p), "The": -20.0}
        return chat(text, logprobs if body.get("logprobs") else None)

    return answer


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database. Making one takes seconds, copying it nothing."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow_store.library()
    mlflow_store.create_database(file)
    return file


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_database: Path) -> Path:
    """An empty checkout as working directory, with a tracking store of its own."""
    root = tmp_path / "checkout"
    root.mkdir()
    shutil.copyfile(migrated_database, root / "mlflow.db")
    monkeypatch.chdir(root)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    return root


CANARY = "-".join(("sk", "test", "planted", "canary"))  # never whole in a file of ours


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, run once with real weights and a real `dvc repro`: minutes."""
    folder = tmp_path_factory.mktemp("small")
    try_run.make(PROJECT, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", CANARY)
        assert try_run.repro(folder) == 0
    return folder


def own_environment(folder: Path) -> dict[str, str]:
    """The environment in which a command runs in the project `folder`, with its own code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    tools = Path(sys.executable).parent  # the stages call `python`: this one, in a bare shell too
    path = f"{tools}{os.pathsep}{kept['PATH']}"
    return {**kept, "PATH": path, "PYTHONPATH": str(folder / "src")}


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "student"
    make_tiny_student(folder)
    return folder


@pytest.fixture
def tiny_student(tiny_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random little Llama and a tokenizer trained on two sentences.

    One thread: two of them wait for each other longer than they compute, on a busy machine.
    """
    monkeypatch.setattr("quip.models.student.cores", lambda: 1)
    return tiny_weights


def byte_bpe(size: int, special: list[str], texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer of at most `size` tokens, trained on `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_tiny_student(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = ["Literal: I missed my bus.", "Funny: my bus missed me"]
    tokenizer = byte_bpe(300, ["<unk>", "</s>"], texts)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


@pytest.fixture(scope="session")
def bart_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "bart"
    make_tiny_bart(folder)
    return folder


@pytest.fixture
def tiny_bart(bart_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a random little BART and a tokenizer trained on the shipped literals."""
    monkeypatch.setattr("quip.models.student.cores", lambda: 1)
    return bart_weights


def make_tiny_bart(folder: Path) -> None:
    import torch
    from tokenizers import processors
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]  # the places they have in BART's vocabulary
    rows = LITERALS.read_text(encoding="utf-8").splitlines()
    tokenizer = byte_bpe(400, special, (json.loads(row)["text"] for row in rows if row))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(fast),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=128,
        init_std=0.2,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    fast.save_pretrained(folder)
