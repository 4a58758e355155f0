"""Growth bench: time and memory of the stages without a model by number of rows.

    python bench/growth.py                     # 100 to 36,000 rows; some minutes
    python bench/growth.py --rows 100 1000     # other sizes
    python bench/growth.py --figure FILE.svg   # also draw the figure

Each stage runs as `dvc repro` runs it, in its own process and folder, on rows made of the shipped
sentences, two joined into one. Rows are literals (prepare), replies (imitation), compared inputs
(preferences), test inputs of two arms (evaluate, report).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import guard
import yaml

ROOT = Path(__file__).parent.parent
SIZES = (100, 1000, 10_000, 36_000)
ARMS = ("sft", "dpo")
CONTROLS = ("teacher", "copy", "best_of_n")
CONTROLLED = 15
"""judge.control_inputs"""
KINDS = ("imitation", "metrics", "curves", "verdicts", "responses", "audit", "roles", "runs")
STAGES = {
    "prepare": "--raw data/raw --out out --metrics out/metrics.json",
    "imitation": "--replies data/replies.jsonl --out out --metrics out/metrics.json",
    "preferences": "--critique data/critique.jsonl --out out/pairs.jsonl "
    "--rankings out/rankings.jsonl --metrics out/metrics.json",
    "evaluate": "--verdicts data/verdicts --responses data/responses "
    "--references data/imitation/references.jsonl --candidates data/candidates.jsonl "
    "--rounds data/rounds --meaning data/meaning.jsonl --similarity data/similarity.json "
    "--roles data/roles --out data/metrics/wtr.json --plots out/wtr.csv --paper out/paper.md",
    "report": " ".join(f"--{kind} data/{kind}" for kind in KINDS)
    + " --preferences out/pairs.jsonl --out out/report",
}
Row = dict[str, Any]


class Usage(NamedTuple):
    """CPU seconds and peak memory in MB of one run of a stage."""

    seconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    if len(args.rows) < 3:
        parser.error(
            "an exponent needs three sizes; the time of the first, the start, is subtracted"
        )
    print(f"{guard.hardware()}; seconds of CPU and MB of a stage's process", flush=True)
    found = {size: measure_stages(size) for size in args.rows}
    rows = {stage: [found[size][stage] for size in args.rows] for stage in STAGES}
    print("\n".join(table(args.rows, rows)))
    if args.figure:
        args.figure.write_text(draw_figure(args.rows, rows), encoding="utf-8")
    guard.report_and_record(
        {f"growth, {stage}": ratio(args.rows, used) for stage, used in rows.items()}
    )


def measure_stages(size: int) -> dict[str, Usage]:
    """{stage: usage} on `size` rows."""
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), size)
        return {stage: run_stage(stage, Path(folder)) for stage in STAGES}


def run_stage(stage: str, folder: Path) -> Usage:
    """Run a stage; its CPU time and peak resident size. It must exit with code 0."""
    command = [sys.executable, "-m", f"quip.stages.{stage}", *STAGES[stage].split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_ROOT": str(folder)}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    assert process.returncode == 0, (folder / "log").read_text()
    return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def exponent(sizes: Sequence[int], used: Sequence[Usage]) -> float:
    """Growth exponent of the time between the two largest sizes, after subtracting the time of the
    smallest (the start); 1 is linear."""
    start = used[0].seconds
    before, after = (max(one.seconds - start, 1e-3) for one in used[-2:])
    return math.log(after / before) / math.log(sizes[-1] / sizes[-2])


def ratio(sizes: Sequence[int], used: Sequence[Usage]) -> float:
    """Growth of the rows over growth of the time: 1 is linear, less is worse."""
    return float((sizes[-1] / sizes[-2]) ** (1 - exponent(sizes, used)))


def table(sizes: Sequence[int], rows: Mapping[str, Sequence[Usage]]) -> Iterator[str]:
    """The lines of a Markdown table, one row per stage."""
    yield f"| stage | {' | '.join(f'{size:,}' for size in sizes)} | exponent | KB a row |"
    yield f"|---|{'---|' * len(sizes)}---|---|"
    for stage, used in rows.items():
        cells = " | ".join(f"{one.seconds:.1f} s, {one.megabytes:.0f} MB" for one in used)
        memory = 1024 * (used[-1].megabytes - used[0].megabytes) / (sizes[-1] - sizes[0])
        yield f"| {stage} | {cells} | {exponent(sizes, used):.2f} | {memory:.1f} |"


def draw_figure(sizes: Sequence[int], rows: Mapping[str, Sequence[Usage]]) -> str:
    """The SVG of seconds by rows on logarithmic axes, with a line of slope one."""
    from matplotlib.axes import Axes

    from quip.reporting import svg_plots

    def draw(axes: Axes) -> None:
        for color, (stage, used) in zip(svg_plots.PALETTE, rows.items(), strict=False):
            seconds = [one.seconds for one in used]
            axes.plot(sizes, seconds, "o-", color=color, label=stage, linewidth=1.6, markersize=4)
        linear = [size / 1000 for size in sizes]
        axes.plot(sizes, linear, color=svg_plots.GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [*(f"{size:,}" for size in sizes[:-1]), f"\n{sizes[-1]:,}"])
        ticks = [0.1, 1, 10, 100]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("rows (dashed: a millisecond a row)")
        axes.set_ylabel("seconds of CPU")
        axes.grid(linewidth=0.6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)

    return svg_plots.render_figure("growth", 3.9, draw)


# ---- the rows ------------------------------------------------------------------------------


def write_inputs(folder: Path, size: int) -> None:
    """Write `size` rows of every input of the stages, and params that accept them."""
    rng = random.Random(size)
    literals, jokes = sentences("literals", "text"), sentences("gold", "better")
    texts = {f"n{at}": join_two(rng, literals) for at in range(size)}
    inputs = [{"input": key, "split": "test", "literal": text} for key, text in texts.items()]
    data = folder / "data"
    write_jsonl(data / "raw/all.jsonl", ({"id": key, "text": text} for key, text in texts.items()))
    (data / "raw/ood.jsonl").write_bytes((ROOT / "data/raw/ood.jsonl").read_bytes())
    write_jsonl(data / "replies.jsonl", (teacher_reply(rng, row, jokes) for row in inputs))
    critiques = (
        critique_row(rng, {**row, "split": "train"}, "1", "2", jokes, "learned") for row in inputs
    )
    write_jsonl(data / "critique.jsonl", critiques)
    references = (
        {**row, "paraphrases": [join_two(rng, jokes), join_two(rng, jokes)]} for row in inputs
    )
    write_jsonl(data / "imitation/references.jsonl", references)
    for arm in ARMS:
        rows = ({**row, "text": join_two(rng, jokes)} for row in inputs)
        write_jsonl(data / f"responses/{arm}.jsonl", rows)
        verdicts = (critique_row(rng, row, arm, "teacher", jokes) for row in inputs)
        write_jsonl(data / f"verdicts/{arm}.jsonl", verdicts)
    duels = (critique_row(rng, row, "dpo", "sft", jokes) for row in inputs)
    write_jsonl(data / "verdicts/duel.jsonl", duels)
    controls = (
        critique_row(rng, row, name, "teacher", jokes)
        for name in CONTROLS
        for row in inputs[:CONTROLLED]
    )
    write_jsonl(data / "verdicts/control.jsonl", controls)
    candidates = ({**row, "sample": 0, "text": join_two(rng, jokes)} for row in inputs)
    write_jsonl(data / "candidates.jsonl", candidates)
    names = (*ARMS, *CONTROLS)
    meaning = (
        {"name": name, "input": row["input"], "split": "test", "cosine": 0.7}
        for name in names
        for row in inputs
    )
    write_jsonl(data / "meaning.jsonl", meaning)
    (data / "similarity.json").write_text(json.dumps({name: {"test": 0.1} for name in names}))
    roles = {"teacher": {"model": "m"}, "critic": {"model": "m"}}
    roles["judges"] = [{"endpoint": "judge", "model": "m"}]  # type: ignore[assignment]
    for name, role in roles.items():
        file = data / f"roles/{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(role))
    (data / "metrics").mkdir()
    write_params(folder)


def write_params(folder: Path) -> None:
    sections = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    sections["arms"] = list(ARMS)
    sections["prepare"] |= {
        "source": "data/raw/all.jsonl",
        "limit": dict.fromkeys(("train", "val", "test", "ood")),
        "max_words": 80,
    }
    sections["imitation"] |= {"max_words": 80}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))
    (folder / "rounds.yaml").write_bytes((ROOT / "rounds.yaml").read_bytes())


def sentences(name: str, key: str) -> list[str]:
    lines = (ROOT / f"data/raw/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[key] for line in lines]


def join_two(rng: random.Random, texts: Sequence[str]) -> str:
    return " ".join(rng.sample(texts, 2))


def teacher_reply(rng: random.Random, row: Row, jokes: Sequence[str]) -> Row:
    split = rng.choices(("train", "val", "test"), (8, 1, 1))[0]
    text = f"1. {join_two(rng, jokes)}\n2. {join_two(rng, jokes)}"
    return {**row, "split": split, "text": text, "finish_reason": "stop"}


def critique_row(
    rng: random.Random,
    row: Row,
    one: str,
    other: str,
    jokes: Sequence[str],
    source: str = "logprobs",
) -> Row:
    p = rng.random()
    lean = 0.0 if source == "learned" else 0.05
    answers = {
        "forward": {"p_first": min(1.0, p + lean), "source": source},
        "backward": {"p_first": 1 - max(0.0, p - lean), "source": source},
    }
    texts = {"a": join_two(rng, jokes), "b": join_two(rng, jokes)}
    return {**row, "name_a": one, "name_b": other, **texts, "judge": "judge", **answers}


def write_jsonl(file: Path, rows: Iterator[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as handle:
        handle.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
