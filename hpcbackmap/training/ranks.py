"""Which rank of how many this process is, whatever started it, and how the ranks agree.

One adapter reads the variables of torchrun and the deepspeed launcher, of Open MPI, of MPICH and other PMI
launchers, and of Slurm's srun; without any of them the process is alone.
"""

import logging
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hpcbackmap.errors import ConfigError, HpcbackmapError, OutputError, ResourceError

__all__ = ["World", "join", "on_rank_zero", "pick_device", "read_world"]

log = logging.getLogger(__name__)

LAUNCHERS = {
    # name: (rank, world size, candidates for the rank within the node)
    "torchrun": ("RANK", "WORLD_SIZE", ("LOCAL_RANK",)),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",)),
    "PMI": ("PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID")),
    "Slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",)),
}
"""In order of precedence: mpirun starts its daemons with srun, torchrun may run inside either.

A batch script without srun has SLURM_PROCID but no SLURM_STEP_NUM_TASKS, and is alone.
"""


@dataclass(frozen=True)
class World:
    """rank: of this process, 0 to size - 1. local_rank: within the node. launcher: who said so."""

    rank: int
    size: int
    local_rank: int
    launcher: str


def read_world(environ: Mapping[str, str]) -> World:
    """The world that the launcher's variables describe.

    Raises ResourceError where this process was told to be alone although it is one of many, which would
    train N times side by side, and ConfigError for variables that make no sense.
    """
    told = {
        name: world for name in LAUNCHERS if (world := _read_launcher(name, environ)) is not None
    }
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
        raise ConfigError(f"{rank_key}={rank} is no rank of {size_key}={size}")
    return World(rank, size, local, name)


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


def join(world: World):
    """Meet the other ranks; returns the torch device of this one.

    Sets the variables that DeepSpeed reads (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
    Compiles nothing: DeepSpeed's shared-memory collective for CPUs is left out. A second call in the same
    process reuses the first call's process group.
    """
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = pick_device(world, n_gpus, gpus_bound="SLURM_GPUS_PER_TASK" in os.environ)
    if "OMP_NUM_THREADS" not in os.environ and world.size > 1:
        torch.set_num_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
    os.environ.update(
        RANK=str(world.rank),
        WORLD_SIZE=str(world.size),
        LOCAL_RANK=str(device.index or 0 if n_gpus else world.local_rank),
    )
    if torch.distributed.is_initialized():
        return device
    address, port = _meeting_point(world)
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
    if not n_gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if n_gpus else "gloo", verbose=False)
    if torch.distributed.get_world_size() != world.size:
        found = torch.distributed.get_world_size()
        raise ResourceError(f"{world.launcher} announced {world.size} ranks, but {found} met")
    return device


def _meeting_point(world: World) -> tuple[str, int]:
    """Host and port where the ranks meet; MASTER_ADDR and MASTER_PORT of the user come first."""
    environ = os.environ
    if "MASTER_ADDR" in environ and "MASTER_PORT" in environ:
        return environ["MASTER_ADDR"], int(environ["MASTER_PORT"])
    if world.size == 1:
        return "127.0.0.1", _free_port()
    if world.launcher == "Slurm":
        if "MASTER_ADDR" not in environ:
            raise ResourceError(
                "under srun, set MASTER_ADDR to the first node (see slurm/train_stage.sh)"
            )
        return environ["MASTER_ADDR"], 20000 + int(environ.get("SLURM_JOB_ID", 0)) % 10000
    if world.launcher == "torchrun":
        raise ResourceError("RANK and WORLD_SIZE are set; set MASTER_ADDR and MASTER_PORT as well")
    return _ask_mpi(world)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ask_mpi(world: World) -> tuple[str, int]:
    """Under mpirun, rank 0 tells the others over MPI where it is."""
    from hpcbackmap.mpi import get_comm

    comm = get_comm()
    if comm.size != world.size:
        raise ResourceError(
            f"{world.launcher} started {world.size} ranks, mpi4py sees {comm.size}; use the mpirun "
            "that belongs to mpi4py, or set MASTER_ADDR and MASTER_PORT"
        )
    return comm.bcast((socket.gethostname(), _free_port()) if comm.rank == 0 else None)


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
