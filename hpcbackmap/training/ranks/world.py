"""Which rank of how many this process is, whatever started it, and how the ranks agree.

The variables of torchrun and the deepspeed launcher, of Open MPI, of MPICH and other PMI launchers, and of
Slurm's srun count (`runtime/launcher.py`); without any of them the process is alone.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hpcbackmap.runtime.errors import HpcbackmapError, OutputError, ResourceError
from hpcbackmap.runtime.launcher import World, places, refuse_half

if TYPE_CHECKING:
    import torch

__all__ = [
    "HERE",
    "World",
    "come_to",
    "host_group",
    "on_rank_zero",
    "pick_device",
    "rank_names",
    "read_world",
]

T = TypeVar("T")
NAMED = 16
"""Ranks that a message names one by one."""


@dataclass
class _Place:
    """Number and name of the last place of a training that the main thread of this process came by."""

    number: int = 0
    name: str = "the start"


HERE = _Place()


def come_to(name: str) -> None:
    """The main thread comes to a place of the training; every rank calls it in the same order.

    `ranks.watch` tells from it who is behind.
    """
    HERE.number, HERE.name = HERE.number + 1, name


def read_world(environ: Mapping[str, str]) -> World:
    """The world that the launcher's variables describe.

    Raises ResourceError where this process cannot know its place among the others, or was told to be alone
    although it is one of many, which would train N times side by side; and ConfigError for variables that
    make no sense.
    """
    told = places(environ)
    refuse_half(environ, told)
    if not told:
        return World(0, 1, 0, "single process")
    world = next(iter(told.values()))
    widest = max(told.values(), key=lambda other: other.size)
    if world.size == 1 and widest.size > 1:
        raise ResourceError(
            f"every rank believes to be 0 of 1: {world.launcher} says 1 rank, {widest.launcher} started "
            f"{widest.size}; start the ranks with one launcher only, or unset RANK and WORLD_SIZE"
        )
    return world


def pick_device(world: World, n_gpus: int, gpus_bound: bool = False) -> "torch.device":
    """The torch device of this rank: one GPU per rank of the node, or the CPU where there is none.

    gpus_bound: the launcher shows every rank its own GPU only. Raises ResourceError if ranks would share.
    """
    import torch

    if n_gpus == 0:
        return torch.device("cpu")
    if n_gpus == 1 and gpus_bound:
        return torch.device("cuda", 0)
    if world.local_rank >= n_gpus:
        raise ResourceError(
            f"{socket.gethostname()}: {n_gpus} GPU(s), but a rank {world.local_rank + 1} on this node; "
            "start as many ranks per node as it has GPUs"
        )
    return torch.device("cuda", world.local_rank)


def host_group(world: World, device: "torch.device") -> Any:
    """Process group for small numbers of the hosts that no GPU should wait for; None: the usual one."""
    import torch

    if device.type == "cpu" or world.size == 1:
        return None
    return torch.distributed.new_group(backend="gloo")


def on_rank_zero(world: World, action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0 only and give its result to all ranks; also a barrier.

    A HpcbackmapError on rank 0 is raised on every rank, so that nobody waits for a rank that has left; an
    OSError (full disk, no permission) becomes OutputError.
    """
    import torch

    answer: list[Any] = [None, None]
    if world.rank == 0:
        try:
            answer[0] = action()
        except HpcbackmapError as error:
            answer[1] = error
        except OSError as error:
            answer[1] = OutputError(f"{error.filename or 'output'}: {error.strerror or error}")
    come_to("work of rank 0")
    if world.size > 1:
        torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    ours: T = answer[0]
    return ours


def rank_names(ranks: list[int]) -> str:
    """``rank 1``, ``ranks 0, 1, 2`` or, of many, ``ranks 0, 1, 2, … (200 in all)``."""
    shown = ", ".join(map(str, ranks[:NAMED]))
    more = f", … ({len(ranks)} in all)" if len(ranks) > NAMED else ""
    return f"rank{'s' if len(ranks) > 1 else ''} {shown}{more}"
