"""Client bench: share of an endpoint's speed that the client uses, and the cost of a call.

    python bench/calls.py            # the client against a loopback server, the store, memory
    python bench/calls.py --engine   # also the embedded engine (needs the weights; minutes)

The ratios are of one run on one machine; no test holds them as limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

SLOTS, DELAY = 64, 0.2
MAX_IN_FLIGHT = 96
"""Most calls in flight: more than the server's slots, which no client knows."""
CALLS, ROWS, HITS = 5_000, 36_000, 20_000
COMPARISONS = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--engine", action="store_true", help="measure the embedded engine, too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve())
    elif args.measure:
        print(json.dumps(MEASURES[args.measure]()))
    else:
        run_all(args.engine)


def run_all(engine: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True
        )
        assert server.stdout
        url = server.stdout.readline().strip()
        try:
            write_params(Path(folder), url)
            for name in ("throughput", "hits", "memory"):
                print(f"{name}: {figures_text(measure_in_process(name, folder))}", flush=True)
        finally:
            server.terminate()
        if engine:
            print(f"engine: {figures_text(measure_in_process('engine', folder))}", flush=True)


def write_params(folder: Path, url: str) -> None:
    prices = {"price_in": 1.0, "price_out": 1.0}
    entry = {"base_url": url, "model": "m", "concurrency": MAX_IN_FLIGHT, **prices}
    embedded = {"base_url": "embedded", "model": "qwen2.5-coder-1.5b-instruct-q4_k_m"}
    sections = {"endpoints": {"loopback": entry, "embedded": {**embedded, "concurrency": 6}}}
    (folder / "params.yaml").write_text(yaml.safe_dump(sections))


def measure_in_process(name: str, folder: str) -> dict[str, Any]:
    """The figures of one measure, run in its own process so that CPU and memory are separate."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures_text(figures: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {value:,.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in figures.items()
    )


def throughput() -> dict[str, Any]:
    """Throughput: share of the ideal that slots and delay of the server allow, and CPU per call."""
    run_calls("warm up", 1)
    began, cpu = time.perf_counter(), time.process_time()
    run_calls("throughput", CALLS)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "calls": CALLS,
        "share_of_ideal": CALLS * DELAY / SLOTS / wall,
        "cores_per_100_calls_a_second": 100 * cpu / CALLS,
    }


def store_hits() -> dict[str, Any]:
    """Rows per second answered from the store."""
    fill_store(HITS)
    began = time.perf_counter()
    run_calls("throughput", HITS)
    return {"rows": HITS, "a_second": HITS / (time.perf_counter() - began)}


def memory() -> dict[str, Any]:
    """Peak resident size for as many rows as the paper has pairs, half of them stored."""
    run_calls("memory", ROWS, letters=400, instant=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = Path(".quip/calls.journal").stat().st_size
    return {"rows": ROWS, "peak_MB": peak, "bytes_a_reply": size / ROWS}


def engine() -> dict[str, Any]:
    """Comparisons per second through the project's client and prompt, against requests one at a
    time to the same engine with its prompt cache off."""
    from quip.critics.multiple_choice import order_requests
    from quip.llm import connection
    from quip.llm.requests.prompts import read
    from quip.models import llamacpp as embedded

    root = Path(__file__).parent.parent / "data" / "raw"
    pairs = [json.loads(line) for line in (root / "gold.jsonl").open(encoding="utf-8")]
    pairs = [pair for pair in pairs if pair["half"] == "tune"][:: len(pairs) // 2 // COMPARISONS]
    pairs = pairs[:COMPARISONS]
    asked = [
        request
        for pair in pairs
        for first, second in (("better", "worse"), ("worse", "better"))
        for request in order_requests(
            read("critic_paper"), pair["literal"], pair[first], pair[second], 1, True
        )
    ]
    with connection.connect("embedded") as model:
        began = time.perf_counter()
        with embedded.serve(model.settings.model, 6) as url:
            start = time.perf_counter() - began
            plain = time_one_by_one(url, asked)
        began = time.perf_counter()
        list(model.ask(asked, "bench"))
        ours = time.perf_counter() - began
        cached = model.ledger.counts["cached_tokens"] / model.ledger.counts["prompt_tokens"]
    return {
        "calls": len(asked),
        "start_seconds": start,
        "plain_a_second": len(asked) / plain,
        "ours_a_second": len(asked) / ours,
        "ratio": plain / ours,
        "share_of_prompt_cached": cached,
    }


def time_one_by_one(url: str, asked: Sequence[Any]) -> float:
    import urllib.request

    began = time.perf_counter()
    for request in asked:
        body = {**request.body("m"), "cache_prompt": False}
        message = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(message).read()
    return time.perf_counter() - began


def requests(what: str, count: int, letters: int = 60) -> Iterator[Any]:
    from quip.llm.requests.chat import Request

    filler = "x" * letters
    return (Request((("user", f"{what} {i} {filler}"),), seed=i) for i in range(count))


def run_calls(what: str, count: int, letters: int = 60, instant: bool = False) -> None:
    from quip.llm import connection

    with connection.connect("loopback") as model:
        if instant:
            fill_store(count // 2, what, letters)
        for reply in model.ask(requests(what, count, letters), "bench", total=count):
            assert reply is not None


def fill_store(count: int, what: str = "throughput", letters: int = 60) -> None:
    """Put replies like the server's into the store."""
    from quip.llm import reply_store
    from quip.llm.requests.chat import ModelReply

    store = reply_store.open_store()
    for request in requests(what, count, letters):
        key = request.key("m")
        if store.get(key) is None:
            reply = ModelReply(text=TEXT, finish_reason="stop", prompt_tokens=20)
            store.put(key, "m", reply.model_dump_json(exclude_defaults=True), "bench")
    store.close()


TEXT = "I was so early that the early bird asked me to keep the noise down. " * 3


async def serve() -> None:
    """Serve replies: each call takes DELAY seconds, at most SLOTS calls at once."""
    from aiohttp import web

    slots = asyncio.Semaphore(SLOTS)
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": TEXT}}
    usage = {"prompt_tokens": 20, "completion_tokens": 40}
    answer = json.dumps({"model": "m", "choices": [choice], "usage": usage}).encode()

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        async with slots:
            await asyncio.sleep(DELAY)
        return web.Response(body=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
    await asyncio.Event().wait()


MEASURES = {"throughput": throughput, "hits": store_hits, "memory": memory, "engine": engine}


if __name__ == "__main__":
    main()
