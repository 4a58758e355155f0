"""Several processes for a model stage: started by torchrun, counted, and the rows shared out.

With `launch` in params.yaml at one process nothing here does anything. With more, the stage that
DVC runs starts itself again under torchrun (`handed_over`); it may as well be started by torchrun
or `accelerate launch` by hand. Each process works on its own rows; the first gathers and writes.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field

from quip.core.params import Section, load
from quip.runtime.errors import ParamsError, QuipError

T = TypeVar("T")


class Launch(Section):
    """Section `launch`."""

    processes: int = Field(ge=1)
    machines: int = Field(ge=1)
    address: str | None
    mixed_precision: Literal["fp32", "bf16"] | None
    fsdp: bool


class LaunchError(QuipError):
    """The processes of a stage did not come up, or did not all end well."""


def handed_over(module: str, argv: Sequence[str] | None) -> bool:
    """Whether the stage `module` has been run by processes that were started here, so that its
    caller is done. In one of several processes: join the others, and False.

    Raises LaunchError when other than the asked number came up, or one of them failed.
    """
    launch = load("launch", Launch)
    asked = launch.processes * launch.machines
    if started():
        check(asked, size())
        join()
        return False
    if asked == 1:
        return False
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = subprocess.call(command(launch, module, arguments), env=environment())
    if code:
        raise LaunchError(f"{asked} processes were started and one failed; its reason is above.")
    return True


def started() -> bool:
    """Whether torchrun or `accelerate launch` started this process."""
    return "WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def check(asked: int, found: int) -> None:
    """`accelerate launch --cpu --num_processes 2` runs one process and says nothing."""
    if asked != found:
        raise LaunchError(
            f"params.yaml asks for {asked} processes (launch.processes x launch.machines), but "
            f"{found} came up. Start that many (torchrun --nproc-per-node), or change `launch`."
        )


def command(launch: Launch, module: str, arguments: Sequence[str]) -> list[str]:
    """torchrun, by this Python."""
    where = ["--standalone"]
    if launch.machines > 1:
        if launch.address is None:
            raise ParamsError(
                "params.yaml: key 'launch.address' is null, but there are several machines. Give "
                "host:port of the first."
            )
        where = ["--nnodes", str(launch.machines), "--rdzv-backend", "c10d"]
        where += ["--rdzv-id", module, "--rdzv-endpoint", launch.address]
    run = [sys.executable, "-m", "torch.distributed.run", *where]
    return [*run, "--nproc-per-node", str(launch.processes), "-m", "--", module, *arguments]


def environment() -> dict[str, str]:
    """The lock and the clock of the stage are the starting process's."""
    return {**os.environ, "QUIP_LAUNCHED": "1"}


def size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def join() -> None:
    """Meet the other processes: by nccl where there is a GPU for each, else by gloo."""
    import torch
    from accelerate import PartialState

    cpu = not torch.cuda.is_available()
    if cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    check(size(), PartialState(cpu=cpu).num_processes)


def leave() -> None:
    """Wait for the others and part from them."""
    if size() > 1:
        from accelerate import PartialState

        state = PartialState()
        state.wait_for_everyone()
        state.destroy_process_group()


def mine(rows: Sequence[T]) -> Sequence[T]:
    """This process's share: consecutive rows, as many as any other has or one fewer."""
    return rows[len(rows) * rank() // size() : len(rows) * (rank() + 1) // size()]


def gathered(found: Sequence[T]) -> list[T]:
    """What the processes found in their shares, in the order of all rows; in every process."""
    if size() == 1:
        return list(found)
    from accelerate.utils import gather_object

    together: list[T] = gather_object(list(found))
    return together


def share_of_batch(batch_size: int) -> int:
    """Rows of a batch for each process."""
    if batch_size % size():
        raise ParamsError(
            f"params.yaml: a batch_size of {batch_size} cannot be shared among {size()} processes "
            f"(launch). Choose a multiple of {size()}."
        )
    return batch_size // size()


def even(count: int) -> list[int]:
    """Places of this process's share of `count` rows, as many as in any other: the last place may
    come several times."""
    each = math.ceil(count / size())
    return [min(i, count - 1) for i in range(rank() * each, (rank() + 1) * each)]


def precision(own: Any) -> Any:
    """A stage's precision, unless `launch` sets one for all."""
    return load("launch", Launch).mixed_precision or own


def sharded() -> dict[str, Any]:
    """The training arguments that spread a model over the processes, where `launch` wants it."""
    if not load("launch", Launch).fsdp:
        return {}
    return {"fsdp": True, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}
