"""Distributed execution of a model stage: launch under torchrun, row shards, gathered results.

Section `launch` of params.yaml sets the number of processes. With one process the functions here
change nothing. With more, the stage that DVC runs starts itself again under torchrun
(`launch_processes`). torchrun or `accelerate launch` may also start a stage by hand. Each process
works on its own rows; the first one gathers the results and writes them.
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
    """The processes of a stage did not start, or one of them failed."""


def launch_processes(module: str, argv: Sequence[str] | None) -> bool:
    """Run the stage `module` in several processes where params.yaml wants them.

    True: the processes ran to their end, and the caller has nothing left to do. False: the caller
    does the work itself, alone or, after joining the others, as one of the processes.

    Raises LaunchError when another number of processes than wanted started, or one of them failed.
    """
    launch = load("launch", Launch)
    wanted = launch.processes * launch.machines
    if is_launched():
        check_count(wanted, world_size())
        join()
        return False
    if wanted == 1:
        return False
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = subprocess.call(command(launch, module, arguments), env=environment())
    if code:
        raise LaunchError(f"one of {wanted} processes failed; its reason is above.")
    return True


def is_launched() -> bool:
    """Whether torchrun or `accelerate launch` started this process."""
    return "WORLD_SIZE" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def check_count(wanted: int, found: int) -> None:
    """Refuse another number of processes than params.yaml wants.

    `accelerate launch --cpu --num_processes 2` runs one process without a message.
    """
    if wanted != found:
        raise LaunchError(
            f"params.yaml asks for {wanted} processes (launch.processes x launch.machines), but "
            f"{found} started. Start {wanted} (torchrun --nproc-per-node), or change `launch`."
        )


def command(launch: Launch, module: str, arguments: Sequence[str]) -> list[str]:
    """The torchrun command line of a stage, run by this Python."""
    where = ["--standalone"]
    if launch.machines > 1:
        if launch.address is None:
            raise ParamsError(
                "params.yaml: key 'launch.address' is null, but launch.machines is more than 1. "
                "Give host:port of the first machine."
            )
        where = ["--nnodes", str(launch.machines), "--rdzv-backend", "c10d"]
        where += ["--rdzv-id", module, "--rdzv-endpoint", launch.address]
    run = [sys.executable, "-m", "torch.distributed.run", *where]
    return [*run, "--nproc-per-node", str(launch.processes), "-m", "--", module, *arguments]


def environment() -> dict[str, str]:
    """The processes' environment. QUIP_LAUNCHED leaves the stage's lock and clock to the parent."""
    return {**os.environ, "QUIP_LAUNCHED": "1"}


def world_size() -> int:
    """The number of processes, as torchrun sets it; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number from 0, as torchrun sets it; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def join() -> None:
    """Join the process group: nccl on GPUs, gloo on CPUs."""
    import torch
    from accelerate import PartialState

    cpu = not torch.cuda.is_available()
    if cpu:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    check_count(world_size(), PartialState(cpu=cpu).num_processes)


def leave() -> None:
    """Wait for the other processes, then leave the process group."""
    if world_size() > 1:
        from accelerate import PartialState

        state = PartialState()
        state.wait_for_everyone()
        state.destroy_process_group()


def local_shard(rows: Sequence[T]) -> Sequence[T]:
    """This process's shard of `rows`: consecutive rows. Shard sizes differ by one at most."""
    return rows[len(rows) * rank() // world_size() : len(rows) * (rank() + 1) // world_size()]


def gather(found: Sequence[T]) -> list[T]:
    """The results of all shards in row order; the same list in every process."""
    if world_size() == 1:
        return list(found)
    from accelerate.utils import gather_object

    together: list[T] = gather_object(list(found))
    return together


def local_batch_size(batch_size: int) -> int:
    """Rows of a batch for each process.

    Raises ParamsError when `batch_size` is no multiple of the number of processes.
    """
    if batch_size % world_size():
        raise ParamsError(
            f"params.yaml: a batch_size of {batch_size} cannot be divided among {world_size()} "
            f"processes (launch). Choose a multiple of {world_size()}."
        )
    return batch_size // world_size()


def even_shard(count: int) -> list[int]:
    """Indices of this process's shard of `count` rows. Every shard has the same size; the last
    index is repeated to fill it."""
    each = math.ceil(count / world_size())
    return [min(i, count - 1) for i in range(rank() * each, (rank() + 1) * each)]


def precision(own: Any) -> Any:
    """`launch.mixed_precision` where it is set, else the stage's `own`."""
    return load("launch", Launch).mixed_precision or own


def fsdp_arguments() -> dict[str, Any]:
    """The training arguments of FSDP, which shards a model over the processes; {} without it."""
    if not load("launch", Launch).fsdp:
        return {}
    return {"fsdp": True, "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}
