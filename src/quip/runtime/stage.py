"""Stage harness: arguments, lock, exit codes, printed counts and the clock of a stage.

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
    """Run a stage under its lock and note its time.

    Exit codes: 0 done, 2 wrong params or data or a full disk, 3 endpoint failed, 130 interrupted.
    Each error is one line on stderr.
    """
    name = os.environ.get("DVC_STAGE") or Path(sys.argv[0]).stem
    clock.record_start()
    began = time.monotonic() - time.process_time()
    try:
        with stage_lock(name) if owns_stage() else nullcontext():
            main()
    except QuipError as error:
        fail(f"{name}: {error}", error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        fail(
            f"{name}: the disk is full ({error.filename or error.strerror}). Free some space and "
            "run `dvc repro` again; all finished work is kept.",
            2,
        )
    except KeyboardInterrupt:
        fail(f"{name}: interrupted. Run `dvc repro` to resume from here.", 130)
    if owns_stage():
        note_time(name, time.monotonic() - began)


def owns_stage() -> bool:
    """Whether this process holds the stage's lock and notes its time.

    A process that the stage itself started (`quip.training.distributed`) does not, nor any but the
    first of several.
    """
    return "QUIP_LAUNCHED" not in os.environ and os.environ.get("RANK", "0") == "0"


def fail(message: str, code: int) -> None:
    """Print `message` on stderr and exit with `code`."""
    print(message, file=sys.stderr)
    sys.exit(code)


@contextmanager
def stage_lock(name: str) -> Iterator[None]:
    """Hold the lock of stage `name`. DVC's own lock is not enough: a killed DVC drops it while the
    stage may still run."""
    folder = Path(".quip", "locks")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name.replace('/', '_')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        line = f"{name}: another process is running this stage here; waiting for it to end."
        print(line, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def print_counts(name: str, counts: dict[str, int], examples: dict[str, str] | None = None) -> None:
    """Print a stage's counts on one line, and the first example of each drop reason below it."""
    print(f"{name}: " + ", ".join(f"{key} {value:,}" for key, value in counts.items()))
    for reason, example in (examples or {}).items():
        print(f"  first {reason}: {example[:120]!r}")
