"""What every stage needs around its work: arguments, a lock, clean endings, counts, a clock.

A stage module ends with `if __name__ == "__main__": stage.run(main)`.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from quip.runtime import clock
from quip.runtime.errors import QuipError
from quip.runtime.stage_times import note_time


def arguments(
    doc: str | None, argv: Sequence[str] | None, *names: str, **optional: str
) -> argparse.Namespace:
    """Parse `--name PATH` options: those in `names` required, those in `optional` with defaults."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in names:
        parser.add_argument(f"--{name}", required=True, metavar="PATH")
    for name, default in optional.items():
        parser.add_argument(f"--{name}", default=default, help=f"default: {default}")
    return parser.parse_args(argv)


def run(main: Callable[[], None]) -> None:
    """Run a stage under its lock. Exit codes: 0 done, 2 params or data, 3 endpoint; a line each."""
    name = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    clock.started()
    began = time.monotonic() - time.process_time()
    try:
        with holding(name) if alone() else nullcontext():
            main()
    except QuipError as error:
        fail(f"{name}: {error}", error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        fail(
            f"{name}: the disk is full ({error.filename or error.strerror}). Free some space and "
            "run `dvc repro` again; everything that was finished is kept.",
            2,
        )
    except KeyboardInterrupt:
        fail(f"{name}: interrupted. `dvc repro` goes on from here.", 130)
    if alone():
        note_time(name, time.monotonic() - began)


def alone() -> bool:
    """Whether the stage's lock and clock are this process's: not so of one that the stage itself
    started (`quip.training.distributed`), or of the second of several."""
    return "QUIP_LAUNCHED" not in os.environ and os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(code)


@contextmanager
def holding(name: str) -> Iterator[None]:
    """Hold this stage's own lock: DVC drops its lock when it is killed, the stage may live on."""
    folder = Path(".quip", "locks")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name.replace('/', '_')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        line = f"{name}: another process still runs this stage here; waiting for it to end."
        print(line, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def say(name: str, counts: dict[str, int], examples: dict[str, str] | None = None) -> None:
    """Print what went in, what came out and what was dropped, with the first example of each."""
    print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    for reason, example in (examples or {}).items():
        print(f"  first {reason}: {example[:120]!r}")
