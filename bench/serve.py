"""Serving bench: `quip serve` under 32 concurrent clients for a minute, over the loopback.

    python bench/serve.py [VERSION|ARM ...]      # in a project with trained students

The server runs in its own process; each client asks without pause for the answer by which the
student is judged. Prints requests per second and latencies; exits with 1 when a request failed.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

CLIENTS, SECONDS, TIMEOUT = 32, 60.0, 120.0
"""Clients, seconds of load, and seconds allowed for the server's start and for a reply."""
SENTENCES = Path("data/raw/literals.jsonl")


class Answer(NamedTuple):
    seconds: float
    error: str | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("versions", nargs="*", help="as of `quip serve`")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args()
    base, server = start_server(args.versions)
    try:
        found, took = put_under_load(base, args.clients, args.seconds)
    finally:
        server.terminate()
        server.wait()
    print(summary_line(found, args.clients, took))
    if errors := {answer.error for answer in found if answer.error}:
        sys.exit(f"errors: {'; '.join(sorted(errors))}")


def start_server(versions: list[str]) -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "quip.cli.main", "serve", *versions, "--port", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    base, end = f"http://127.0.0.1:{port}", time.monotonic() + TIMEOUT
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{base}/v1/models").read()
            return base, server
        except OSError:
            time.sleep(0.2)
    server.kill()
    sys.exit("the server did not start")


def put_under_load(base: str, clients: int, seconds: float) -> tuple[list[Answer], float]:
    """Every answer, and the seconds until the last; each client asks again after each answer."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    sentences = [json.loads(line)["text"] for line in lines if line]
    found: list[Answer] = []
    began = time.monotonic()

    def client(number: int) -> None:
        while time.monotonic() - began < seconds:
            found.append(ask(base, sentences[number % len(sentences)]))
            number += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, time.monotonic() - began


def ask(base: str, sentence: str) -> Answer:
    body = {"model": "quip-student", "messages": [{"role": "user", "content": sentence}]}
    request = urllib.request.Request(
        f"{base}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    began, error = time.monotonic(), None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            json.loads(reply.read())["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as refused:
        error = f"{refused.code} {refused.read().decode()}"
    except (OSError, ValueError, LookupError) as failure:
        error = repr(failure)
    return Answer(time.monotonic() - began, error)


def summary_line(found: list[Answer], clients: int, took: float) -> str:
    times = [answer.seconds for answer in found]
    percentiles = statistics.quantiles(times, n=100)
    failed = sum(answer.error is not None for answer in found)
    return (
        f"{clients} clients, {took:.0f} s: {len(found)} requests, {failed} failed, "
        f"{len(found) / took:.1f} a second, latency p50 {percentiles[49]:.2f} s, "
        f"p95 {percentiles[94]:.2f} s, p99 {percentiles[98]:.2f} s"
    )


if __name__ == "__main__":
    main()
