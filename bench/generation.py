"""Generation bench: candidates and responses against `generate` as its documentation calls it.

    python bench/generation.py               # candidates: k samples of each input
    python bench/generation.py --beams       # responses: the beam-search answer of each input
    python bench/generation.py --model DIR   # another student than models/sft

All run in turns, in one process, on one thread, with the inputs in file order. The ways of the
documentation are one prompt at a time with num_return_sequences, and a padded batch of prompts with
num_return_sequences. A third way, a padded batch that samples with this project's seeds, must
generate the same tokens. All sample from the same distribution, which
tests/unit/models/test_generation.py tests.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import guard
import torch

from quip.core import seeds as seeds_module
from quip.models import generation, student

LITERALS = Path(__file__).parent.parent / "data" / "raw" / "literals.jsonl"
INPUTS, K = 16, 4
"""Inputs per round and samples per input (candidates.k): one batch."""
TEMPERATURE, TOP_P, NEW, BEAMS = 1.0, 0.95, 40, 4
Way = Callable[[Sequence[str], Sequence[int]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="models/sft")
    parser.add_argument("--beams", action="store_true", help="responses instead of candidates")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    one = student.load(args.model)
    torch.set_num_threads(1)
    print(f"{guard.hardware()}; one thread; {args.model}", flush=True)
    name, ways = ("responses", beam_ways(one)) if args.beams else ("candidates", sampling_ways(one))
    guard.report_and_record(compare(name, ways, args.rounds))


def compare(name: str, ways: dict[str, tuple[Way, bool]], rounds: int) -> dict[str, float]:
    """{name: CPU time of a way over that of "ours"}. A way is a function and a flag: must it
    generate the texts of "ours"?"""
    lines = LITERALS.read_text(encoding="utf-8").splitlines()[: rounds * INPUTS]
    literals = [json.loads(line)["text"] for line in lines]
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    same: dict[str, list[bool]] = {way: [] for way in ways}
    for number in range(rounds):
        inputs = literals[number * INPUTS : (number + 1) * INPUTS]
        seeds = [seeds_module.seed_of(number, i) for i in range(INPUTS * K)]
        texts = {}
        for way, (call, _) in ways.items():
            began = time.process_time()
            texts[way] = call(inputs, seeds)
            seconds[way].append(time.process_time() - began)
        for way in ways:
            same[way] += [a == b for a, b in zip(texts[way], texts["ours"], strict=True)]
    ratios = {}
    for way, (_, must) in ways.items():
        pairs = zip(seconds[way], seconds["ours"], strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        equal = statistics.mean(same[way])
        told = f"{equal:.1%} of the texts equal" if must else "samples of its own"
        print(f"  {way:<24} {statistics.median(seconds[way]):6.2f} s  {ratio:5.2f}  {told}")
        if way != "ours":
            ratios[f"{name}, {way}"] = ratio
        assert not must or equal > 0.95, f"{way}: other texts"
    return ratios


def sampling_ways(one: student.Student) -> dict[str, tuple[Way, bool]]:
    sampled = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P}
    sampled |= {"top_k": generation.TOP_K, "num_return_sequences": K}

    def one_at_a_time(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [text for literal in inputs for text in generate(one, [literal], sampled)]

    def padded(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return generate(one, inputs, sampled)

    def seeded(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        rows = [literal for literal in inputs for _ in range(K)]
        chooser = generation.SeededNucleus(seeds, TEMPERATURE, TOP_P)
        return generate(one, rows, {"do_sample": False, "logits_processor": [chooser]})

    def ours(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        rows = [literal for literal in inputs for _ in range(K)]
        options = {"temperature": TEMPERATURE, "top_p": TOP_P, "max_new_tokens": NEW}
        return generation.sample(one, rows, seeds, **options)

    return {
        "one prompt at a time": (one_at_a_time, False),
        "padded batch": (padded, False),
        "padded batch, our seeds": (seeded, True),
        "ours": (ours, True),
    }


def beam_ways(one: student.Student) -> dict[str, tuple[Way, bool]]:
    searched = {"do_sample": False, "num_beams": BEAMS}

    def one_at_a_time(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return [text for literal in inputs for text in generate(one, [literal], searched)]

    def padded(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return generate(one, inputs, searched)

    def ours(inputs: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return generation.respond(one, inputs, max_new_tokens=NEW, num_beams=BEAMS)

    return {
        "one prompt at a time": (one_at_a_time, True),
        "padded batch": (padded, True),
        "ours": (ours, True),
    }


@torch.inference_mode()
def generate(one: student.Student, inputs: Sequence[str], options: dict[str, Any]) -> list[str]:
    """Generate texts as the documentation of transformers on text generation does."""
    tokenizer = one.tokenizer
    tokenizer.padding_side = "left"
    batch = tokenizer([one.source(row) for row in inputs], padding=True, return_tensors="pt")
    ids = one.model.generate(
        **batch, **options, max_new_tokens=NEW, pad_token_id=tokenizer.pad_token_id
    )
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return [generation.first_line(text) for text in texts]


if __name__ == "__main__":
    main()
