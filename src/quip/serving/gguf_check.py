"""GGUF check: compares a GGUF file's log-probabilities with those of its student, token by token.

Both read the same sentences. The student continues each one greedily; at every token of that
continuation the engine's log-probabilities of its likeliest next tokens are compared with the
student's.
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
"""Largest accepted difference of a log-probability (measured in docs/serving.md)."""
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
"""A grammar of printable ASCII for the engine's own output, which is not used.

Without it the engine withholds a token's log-probabilities until its bytes form a whole character.
The log-probabilities reported are those before the grammar.
"""


class Agreement(NamedTuple):
    """The largest difference of a log-probability, and the number of positions compared."""

    worst: float
    positions: int

    def summary(self, bound: float) -> str:
        return (
            f"log-probabilities of the {TOP} likeliest tokens at {self.positions} positions differ "
            f"by {self.worst:.4f} at most (bound {bound})"
        )


def check(student: Student, file: Path, bound: float) -> Agreement:
    """The agreement of a GGUF file with its student.

    Raises DataError when tokens differ or a log-probability differs by more than `bound`.
    """
    found = measure(student, file)
    if not found.worst <= bound:
        raise DataError(f"{file.name} disagrees with the student: {found.summary(bound)}.")
    return found


def measure(student: Student, file: Path) -> Agreement:
    """Compare file and student on SENTENCES. Raises DataError when the engine's tokens differ."""
    server, worst, positions = start_engine(file), 0.0, 0
    for sentence in SENTENCES:
        ids, begin, expected = greedy_continuation(student, sentence)
        split = post(server, "/tokenize", {"content": prompt(sentence)})["tokens"]
        if split != ids[:begin]:
            raise DataError(
                f"{file.name} tokenizes {sentence!r} differently: {split}, not {ids[:begin]}."
            )
        for end in range(begin, len(ids)):
            worst = max(
                worst, logprob_difference(next_logprobs(server, ids[:end]), expected[end - 1])
            )
            positions += 1
    return Agreement(worst, positions)


def start_engine(file: Path) -> Any:
    """Start the embedded engine on this file, with one slot and a key-value cache in float32.

    The default cache in float16 has rounding errors that would hide small errors of the file.
    """
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_parallel, settings.n_ctx = 1, CONTEXT
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = cores()
    settings.verbosity = 0
    return xllamacpp.Server(settings)


def greedy_continuation(student: Student, sentence: str) -> tuple[list[int], int, torch.Tensor]:
    """Token ids of the prompt and the student's greedy continuation, the number of prompt tokens,
    and the log-probabilities (length, vocabulary) of the token after each."""
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


def next_logprobs(server: Any, ids: list[int]) -> dict[int, float]:
    """The engine's likeliest tokens after `ids` and their log-probabilities."""
    body = {"prompt": ids, "n_predict": 1, "temperature": 0, "n_probs": TOP, "grammar": ASCII}
    (found,) = post(server, "/completion", body)["completion_probabilities"]
    return {entry["id"]: entry["logprob"] for entry in found["top_logprobs"]}


def logprob_difference(top: Mapping[int, float], expected: torch.Tensor) -> float:
    """Largest absolute difference over the engine's likeliest tokens; infinite when the student's
    likeliest token is not among them."""
    if int(expected.argmax()) not in top:
        return float("inf")
    return max(abs(value - float(expected[token])) for token, value in top.items())


def post(server: Any, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """POST a JSON body to the engine; returns its JSON answer."""
    request = urllib.request.Request(
        f"{server.listening_address}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as reply:
        return dict(json.loads(reply.read()))
