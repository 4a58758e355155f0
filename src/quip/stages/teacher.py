"""teacher: asks the large model for humorous paraphrases of every input and keeps its raw replies.

Replies to training inputs become training pairs; replies to validation, test and out-of-domain
inputs (asked once each) become the references of the judges. Stage `imitation` parses them, so
that a new parser needs no new calls.

    python -m quip.stages.teacher --prepared data/prepared --exemplars data/raw/exemplars.jsonl \
        --out data/teacher/replies.jsonl --calls data/calls/teacher.jsonl \
        --metrics data/metrics/teacher.json
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from quip.core.jsonl import read_rows, write_json, write_rows
from quip.core.params import Section, load
from quip.core.records import Exemplar, LiteralText, Reply, Split
from quip.llm import connection
from quip.llm.call_outputs import record_calls
from quip.llm.requests import prompts
from quip.llm.requests.chat import About, Request
from quip.runtime import stage
from quip.runtime.errors import ParamsError


class Params(Section):
    endpoint: str
    prompt: str
    n: int
    train_inputs: int | None
    exemplars: int
    prefixes: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


class Input(NamedTuple):
    split: Split
    literal: LiteralText
    prefix: int


def main(argv: Sequence[str] | None = None) -> None:
    args = stage.arguments(__doc__, argv, "prepared", "exemplars", "out", "calls", "metrics")
    params = load("teacher", Params)
    prefixes = make_prefixes(read_rows(args.exemplars, Exemplar), params)
    inputs = order(read_inputs(Path(args.prepared), params.train_inputs), len(prefixes))
    with record_calls(args.calls), connection.connect(params.endpoint) as teacher:
        asked = (request(item, prefixes[item.prefix], params) for item in inputs)
        answers = list(teacher.ask(asked, "teacher", total=len(inputs)))
    rows = [
        Reply(
            input=item.literal.id,
            split=item.split,
            literal=item.literal.text,
            text=answer.text,
            finish_reason=answer.finish_reason,
        )
        for item, answer in zip(inputs, answers, strict=True)
        if answer is not None
    ]
    rows.sort(key=lambda row: (get_args(Split).index(row.split), row.input))
    write_rows(args.out, rows)
    by_split = Counter[str](row.split for row in rows)
    stage.print_counts("teacher", {"asked": len(inputs), "answered": len(rows), **by_split})
    write_json(args.metrics, {"asked": len(inputs), "answered": len(rows), **teacher.spent()})


def read_inputs(folder: Path, train_inputs: int | None) -> list[tuple[Split, LiteralText]]:
    """Every input to ask for: of the training part the first `train_inputs` (None: all)."""
    rows = {split: read_rows(folder / f"{split}.jsonl", LiteralText) for split in get_args(Split)}
    rows["train"] = rows["train"][:train_inputs]
    return [(split, row) for split, part in rows.items() for row in part]


def make_prefixes(exemplars: Sequence[Exemplar], params: Params) -> list[str]:
    """`prefixes` blocks of `exemplars` worked examples each, no example used twice.

    Several prefixes in rotation keep the teacher from one set of comic devices; each stays
    the same throughout, so that an engine with a prompt cache reads it once.
    """
    if params.exemplars == 0:
        return [""]
    need = params.exemplars * params.prefixes
    if need > len(exemplars):
        raise ParamsError(
            f"params.yaml: teacher.exemplars x teacher.prefixes asks for {need} exemplars, the "
            f"file has {len(exemplars)}."
        )
    blocks = [exemplars[i : need : params.prefixes] for i in range(params.prefixes)]
    return ["\n\n".join(shot(e, params.n) for e in block) for block in blocks]


def shot(exemplar: Exemplar, n: int) -> str:
    lines = [f"{i}. {p.text}" for i, p in enumerate(exemplar.paraphrases[:n], start=1)]
    return "\n".join([f"Sentence: {exemplar.literal}", *lines])


def order(inputs: Sequence[tuple[Split, LiteralText]], prefixes: int) -> list[Input]:
    """Give every input its prefix by a digest of its id, and put equal prefixes side by side."""
    items = [Input(split, row, number(row.id) % prefixes) for split, row in inputs]
    return sorted(items, key=lambda item: (item.prefix, item.literal.id))


def number(text: str) -> int:
    """A stable number of a text (Python's own hash changes from process to process)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def request(item: Input, prefix: str, params: Params) -> Request:
    """One call; its seed comes from (seed, row id), so order and resuming do not matter.

    A reply cut off at `max_tokens` counts: the next stage keeps its whole paraphrases and counts
    the cut one.
    """
    messages = prompts.fill(
        prompts.read(params.prompt), n=str(params.n), exemplars=prefix, literal=item.literal.text
    )
    return Request(
        messages,
        temperature=params.temperature,
        top_p=params.top_p,
        max_tokens=params.max_tokens,
        seed=number(f"{params.seed}/{item.literal.id}"),
        cut_off=True,
        about=About(item.literal.text, n=params.n),
    )


if __name__ == "__main__":
    stage.run(main)
