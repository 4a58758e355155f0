"""Embedded critic bench: the client against the engine's limit, prompt cache and threads.

    python bench/engine.py       # needs the weights; about five minutes

The same comparisons run in turns: by the project's client, as a stage asks them, and posted to the
engine as token ids, one at a time and in all slots at once. The faster of the last two is the limit
(the engine is a library without its batched benchmark). All must choose the same text. Then the
engine runs with one thread, two threads and all cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

import guard
import yaml

from quip.critics.multiple_choice import order_requests
from quip.llm import connection
from quip.llm.requests.chat import Request
from quip.llm.requests.prompts import read
from quip.models import hardware, llamacpp
from quip.runtime import clock

GOLD = Path(__file__).parent.parent / "data" / "raw" / "gold.jsonl"
MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
ROUNDS, PAIRS, SLOTS = 5, 6, 6
"""Rounds, pairs a round (two calls each), endpoints.embedded.concurrency."""


class EngineRun(NamedTuple):
    """Seconds without the engine's start, the first token of each answer, and the share of prompt
    tokens from the cache."""

    seconds: float
    answers: list[str]
    cached: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"{guard.hardware()}; {2 * PAIRS} comparisons a round", flush=True)
    asked = [comparison_requests(number) for number in range(rounds + 1)]
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        sections = {"base_url": "embedded", "model": MODEL, "concurrency": SLOTS}
        Path("params.yaml").write_text(yaml.safe_dump({"endpoints": {"embedded": sections}}))
        found = [
            {
                "ours": run_client(one),
                "one at a time": run_engine(one, 1),
                "all slots": run_engine(one, SLOTS),
            }
            for one in asked[:rounds]
        ]
        share = print_and_compare(found)
        threads = {n: run_engine(asked[-1], 1, n).seconds for n in sorted({1, 2, hardware.cores()})}
    for count, seconds in threads.items():
        print(f"  {count} threads: {2 * PAIRS / seconds:.2f} calls a second")
    chosen = hardware.cores()
    guard.report_and_record(
        {
            "embedded critic, share of the engine's limit": share,
            "embedded critic, all cores over one thread": threads[1] / threads[chosen],
        }
    )


def print_and_compare(found: Sequence[dict[str, EngineRun]]) -> float:
    """Print calls per second; return the median share of the limit that the client reaches."""
    shares = []
    for way in found[0]:
        rate = statistics.median(2 * PAIRS / one[way].seconds for one in found)
        equal = [
            a == b
            for one in found
            for a, b in zip(one["ours"].answers, one[way].answers, strict=True)
        ]
        same = statistics.mean(equal)
        print(f"  {way:<14} {rate:.2f} calls a second, {same:.0%} the same answer")
    for one in found:
        best = min(seconds for way, (seconds, *_) in one.items() if way != "ours")
        shares.append(best / one["ours"].seconds)
    cached = statistics.median(one["ours"].cached for one in found)
    print(f"  share of prompt tokens from the cache {cached:.0%}")
    spent = clock.seconds_by_part
    told_apart = spent["reading"] + spent["generation"]
    reading = spent["reading"] / told_apart if told_apart else float("nan")
    print(f"  share of the calls' time in reading prompts, by the engine's count {reading:.0%}")
    return statistics.median(shares)


def comparison_requests(number: int) -> list[Request]:
    """Requests for both orders of PAIRS gold pairs of the tuning half, different in each round."""
    pairs = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()]
    pairs = [pair for pair in pairs if pair["half"] == "tune"][number :: ROUNDS + 1][:PAIRS]
    prompt = read("critic_paper")
    return [
        request
        for pair in pairs
        for first, second in (("better", "worse"), ("worse", "better"))
        for request in order_requests(prompt, pair["literal"], pair[first], pair[second], 1, True)
    ]


def run_client(asked: Sequence[Request]) -> EngineRun:
    """Ask through the client as a stage does; no reply is in the store."""
    with connection.connect("embedded") as model:
        start = clock.seconds_by_part["start"]
        began = time.perf_counter()
        replies = list(model.ask(asked, "bench"))
        seconds = time.perf_counter() - began - (clock.seconds_by_part["start"] - start)
        counts = model.ledger.counts
    answers = [reply.text.strip() for reply in replies if reply]
    return EngineRun(seconds, answers, counts["cached_tokens"] / counts["prompt_tokens"])


def run_engine(asked: Sequence[Request], at_once: int, threads: int | None = None) -> EngineRun:
    """Post prompts as token ids to the engine, `at_once` at a time."""
    cores = hardware.cores
    hardware.cores = lambda: threads or cores()
    try:
        with llamacpp.serve(MODEL, SLOTS) as url, ThreadPoolExecutor(at_once) as pool:
            root = url.removesuffix("/v1")
            tokens = [tokenize(root, request) for request in asked]
            began = time.perf_counter()
            answers = list(pool.map(lambda prompt: complete(root, prompt), tokens))
            return EngineRun(time.perf_counter() - began, answers)
    finally:
        hardware.cores = cores


def tokenize(root: str, request: Request) -> list[int]:
    messages = [{"role": role, "content": text} for role, text in request.messages]
    prompt = post(f"{root}/apply-template", {"messages": messages})["prompt"]
    asked = {"content": prompt, "add_special": True, "parse_special": True}
    found: list[int] = post(f"{root}/tokenize", asked)["tokens"]
    return found


def complete(root: str, tokens: Sequence[int]) -> str:
    wanted = {"n_predict": 1, "temperature": 0.0, "cache_prompt": True, "n_probs": 20}
    return str(post(f"{root}/completion", {"prompt": tokens, **wanted})["content"]).strip()


def post(url: str, document: dict[str, Any]) -> dict[str, Any]:
    kind = {"Content-Type": "application/json"}
    message = urllib.request.Request(url, json.dumps(document).encode(), kind)
    with urllib.request.urlopen(message) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


if __name__ == "__main__":
    main()
