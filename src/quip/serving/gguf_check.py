"""Whether a GGUF file says what the student it was made from says, token for token.

Both read the same sentences; the student goes on by itself (greedily), and at every token of what
it says, the engine's log-probabilities of its likeliest next tokens are held against the student's.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from quip.models.hardware import cores
from quip.models.student import Student, prompt
from quip.runtime.errors import DataError

BOUNDS: Mapping[str, float] = {"f32": 0.02, "f16": 0.05}
"""Largest difference of a log-probability that is let through (docs/serving.md: as measured)."""
TOP = 10
NEW_TOKENS = 12
CONTEXT = 512
SENTENCES = (
    "I missed my bus.",
    "The café on 5th Street closed at 9:30 p.m.",
    "My neighbour's dog barked at the moon all night!",
    'She said: "I can\'t find my keys (again)."',
    "We waited 45 minutes for two pizzas, and they were cold.",
    "A naïve résumé: 100 % über-ready…",
    "it rained on my wedding day",
    "Dad mended the sink; now the cellar has a pool.",
)
ASCII = "root ::= [ -~]+"
"""A grammar for what the engine writes, which nobody reads: without it the engine holds a token's
log-probabilities back until its bytes are a whole character. They are those before the grammar."""


class Agreement(NamedTuple):
    """The largest difference of a log-probability, over so many positions."""

    worst: float
    positions: int

    def told(self, bound: float) -> str:
        return (
            f"log-probabilities of the {TOP} likeliest tokens at {self.positions} positions differ "
            f"by {self.worst:.4f} at most (bound {bound})"
        )


def check(student: Student, file: Path, bound: float) -> Agreement:
    """Raises DataError when tokens differ or a log-probability differs by more than `bound`."""
    found = measure(student, file)
    if not found.worst <= bound:
        raise DataError(f"{file.name} does not say what the student says: {found.told(bound)}.")
    return found


def measure(student: Student, file: Path) -> Agreement:
    """Raises DataError when the engine splits one of SENTENCES into other tokens."""
    server, worst, positions = start(file), 0.0, 0
    for sentence in SENTENCES:
        ids, begin, expected = continued(student, sentence)
        split = ask(server, "/tokenize", {"content": prompt(sentence)})["tokens"]
        if split != ids[:begin]:
            raise DataError(f"{file.name} splits other tokens: {split}, not {ids[:begin]}.")
        for end in range(begin, len(ids)):
            worst = max(worst, difference(following(server, ids[:end]), expected[end - 1]))
            positions += 1
    return Agreement(worst, positions)


def start(file: Path) -> Any:
    """The embedded engine on this file, one slot, its cache in float32: by default it rounds what
    it remembers to float16, which would hide small errors of the file behind its own."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_parallel, settings.n_ctx = 1, CONTEXT
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = cores()
    settings.verbosity = 0
    return xllamacpp.Server(settings)


def continued(student: Student, sentence: str) -> tuple[list[int], int, torch.Tensor]:
    """Tokens of the prompt and of what the student adds, how many are the prompt's, and the
    log-probabilities (length, vocabulary) of the token after each."""
    ids = student.tokenizer(prompt(sentence), return_tensors="pt")["input_ids"]
    ids = ids.to(student.model.device)
    with torch.no_grad():
        whole = student.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            pad_token_id=student.tokenizer.pad_token_id,
        )
        logits = student.model(whole).logits[0]
    return whole[0].tolist(), ids.shape[1], logits.float().log_softmax(-1).cpu()


def following(server: Any, ids: list[int]) -> dict[int, float]:
    """The engine's likeliest tokens after `ids` and their log-probabilities."""
    body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": TOP, "grammar": ASCII}
    (found,) = ask(server, "/completion", body)["completion_probabilities"]
    return {entry["id"]: entry["logprob"] for entry in found["top_logprobs"]}


def difference(top: Mapping[int, float], expected: torch.Tensor) -> float:
    """Over the engine's likeliest tokens and the student's likeliest one."""
    if int(expected.argmax()) not in top:
        return float("inf")
    return max(abs(value - float(expected[token])) for token, value in top.items())


def ask(server: Any, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{server.listening_address}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return dict(json.loads(reply.read()))
