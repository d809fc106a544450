"""Which rank of how many this process is, whatever started it, and how the ranks agree.

One adapter reads the variables of torchrun and the deepspeed launcher, of Open MPI, of MPICH and other PMI
launchers, and of Slurm's srun; without any of them the process is alone.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpcbackmap.runtime.errors import ConfigError, HpcbackmapError, OutputError, ResourceError

__all__ = ["World", "host_group", "on_rank_zero", "pick_device", "read_world"]

LAUNCHERS = {
    # name: (rank, world size, candidates for the rank within the node)
    "torchrun": ("RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    "PMI": ("PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID")),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
}
"""In order of precedence: mpirun starts its daemons with srun, torchrun may run inside either.

A batch script without srun has SLURM_PROCID but no SLURM_STEP_NUM_TASKS, and is alone. In a step on one group
of a heterogeneous job both count within the group; in a step over several groups, over all of them.
"""

MPI_PAIRS = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("PMIX_RANK", "OMPI_COMM_WORLD_SIZE"),
)
"""Rank and size as MPI launchers give them."""


@dataclass(frozen=True)
class World:
    """rank: of this process, 0 to size - 1. local_rank: within the node. launcher: who said so."""

    rank: int
    size: int
    local_rank: int
    launcher: str


def read_world(environ: Mapping[str, str]) -> World:
    """The world that the launcher's variables describe.

    Raises ResourceError where this process cannot know its place among the others, or was told to be alone
    although it is one of many, which would train N times side by side; and ConfigError for variables that
    make no sense.
    """
    told = {
        name: world for name in LAUNCHERS if (world := _read_launcher(name, environ)) is not None
    }
    _refuse_half(environ, told)
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


def _read_launcher(name: str, environ: Mapping[str, str]) -> World | None:
    rank_key, size_key, local_keys = LAUNCHERS[name]
    if rank_key not in environ or size_key not in environ:
        return None
    local_key = next((key for key in local_keys if key in environ), rank_key)
    try:
        rank, size, local = (int(environ[key]) for key in (rank_key, size_key, local_key))
    except ValueError:
        raise ConfigError(f"{rank_key}, {size_key} and {local_key} must be numbers") from None
    if not 0 <= rank < size or local < 0:
        raise ConfigError(
            f"{rank_key}={rank} (on its node {local}) is no rank of {size_key}={size}"
        )
    return World(rank, size, local, name)


def _refuse_half(environ: Mapping[str, str], told: Mapping[str, World]) -> None:
    """Half of a pair would make every rank train alone."""
    if "RANK" in environ and "WORLD_SIZE" not in environ:
        raise ResourceError(
            f"RANK={environ['RANK']} is set, WORLD_SIZE is not: set both, or unset RANK to train alone"
        )
    if "WORLD_SIZE" in environ and "RANK" not in environ:
        size = environ["WORLD_SIZE"]
        if size != "1" and size not in {str(world.size) for world in told.values()}:
            raise ResourceError(
                f"WORLD_SIZE={size} is set, RANK is not: start the ranks with a launcher (torchrun, srun, "
                "mpirun), or unset WORLD_SIZE to train alone"
            )
    for rank_key, size_key in MPI_PAIRS:
        if rank_key in environ and not told:
            raise ResourceError(
                f"{rank_key}={environ[rank_key]} says that an MPI launcher started this process, but "
                f"{size_key} does not say how many there are: use mpirun, or set RANK and WORLD_SIZE"
            )


def pick_device(world: World, n_gpus: int, gpus_bound: bool = False):
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


def host_group(world: World, device):
    """Process group for small numbers of the hosts that no GPU should wait for; None: the usual one."""
    import torch

    if device.type == "cpu" or world.size == 1:
        return None
    return torch.distributed.new_group(backend="gloo")


def on_rank_zero(world: World, action: Callable[[], Any]) -> Any:
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
    if world.size > 1:
        torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
