"""What started this process: the one table of launchers' variables, and what they say.

Variables that a shell has kept from an earlier job (`RANK=''`, a `SLURM_PROCID` without its step) say nothing.
"""

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from hpcbackmap.runtime.errors import ConfigError, ResourceError

__all__ = [
    "LAUNCHERS",
    "World",
    "asked_ranks",
    "free_port",
    "launched_by_mpi",
    "launched_rank",
    "places",
    "refuse_half",
]


class Launcher(NamedTuple):
    """Variables of rank and number of ranks, and candidates for the rank within the node.

    mpi: whether it starts MPI programs.
    """

    rank: str
    size: str
    local: tuple[str, ...]
    mpi: bool


LAUNCHERS = {
    "torchrun": Launcher("RANK", "WORLD_SIZE", ("LOCAL_RANK",), mpi=False),
    "Open MPI": Launcher(
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",), mpi=True
    ),
    "PMI": Launcher(
        "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"), mpi=True
    ),
    "Slurm": Launcher("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",), mpi=False),
}
"""In order of precedence: mpirun starts its daemons with srun, torchrun may run inside either.

A batch script without srun has SLURM_PROCID but no SLURM_STEP_NUM_TASKS, and is alone. In a step on one group
of a heterogeneous job both count within the group; in a step over several groups, over all of them.
"""
PMIX_RANK = "PMIX_RANK"
"""Of Open MPI's mpirun and of `srun --mpi=pmix`; it comes without a size of its own."""


class World(NamedTuple):
    """rank: of this process, 0 to size - 1. local_rank: within the node. launcher: who said so."""

    rank: int
    size: int
    local_rank: int
    launcher: str


def places(environ: Mapping[str, str]) -> dict[str, World]:
    """What each launcher says, in order of precedence; without those that are silent or say half.

    Raises ConfigError for variables that make no sense.
    """
    told = ((name, _place(name, environ)) for name in LAUNCHERS)
    return {name: place for name, place in told if place is not None}


def _place(name: str, environ: Mapping[str, str]) -> World | None:
    """What one launcher says."""
    launcher = LAUNCHERS[name]
    if not environ.get(launcher.rank) or not environ.get(launcher.size):
        return None
    local_key = next((key for key in launcher.local if environ.get(key)), launcher.rank)
    keys = (launcher.rank, launcher.size, local_key)
    try:
        rank, size, local = (int(environ[key]) for key in keys)
    except ValueError:
        raise ConfigError(
            f"{', '.join(f'{key}={environ[key]}' for key in dict.fromkeys(keys))}: these are to be numbers; "
            "unset what an earlier job has left"
        ) from None
    if not 0 <= rank < size or local < 0:
        raise ConfigError(
            f"{launcher.rank}={rank} (on its node {local}) is no rank of {launcher.size}={size}"
        )
    return World(rank, size, local, name)


def refuse_half(environ: Mapping[str, str], told: Mapping[str, World]) -> None:
    """Half of a pair would make every rank train alone. Raises ResourceError."""
    if environ.get("RANK") and not environ.get("WORLD_SIZE"):
        raise ResourceError(
            f"RANK={environ['RANK']} is set, WORLD_SIZE is not: set both, or unset RANK to train alone"
        )
    size = environ.get("WORLD_SIZE")
    known = {None, "", "1", *(str(place.size) for place in told.values())}
    if size not in known and not environ.get("RANK"):
        raise ResourceError(
            f"WORLD_SIZE={size} is set, RANK is not: start the ranks with a launcher (torchrun, srun, "
            "mpirun), or unset WORLD_SIZE to train alone"
        )
    pairs = [(item.rank, item.size) for item in LAUNCHERS.values() if item.mpi]
    for rank_key, size_key in [*pairs, (PMIX_RANK, LAUNCHERS["Open MPI"].size)]:
        if environ.get(rank_key) and not told:
            raise ResourceError(
                f"{rank_key}={environ[rank_key]} says that an MPI launcher started this process, but "
                f"{size_key} does not say how many there are: use mpirun, or set RANK and WORLD_SIZE"
            )


def launched_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Rank that the launcher of this process gave it, else 0.

    The highest of several: only the first rank of all launchers is the first rank. Slurm's counts within a
    step only; a batch script, or a shell that has kept it, is no rank.
    """
    names = [item.rank for name, item in LAUNCHERS.items() if name != "Slurm"] + [PMIX_RANK]
    if environ.get(LAUNCHERS["Slurm"].size):
        names.append(LAUNCHERS["Slurm"].rank)
    return max((int(environ[name]) for name in names if environ.get(name, "").isdigit()), default=0)


def free_port() -> int:
    """A TCP port of this host that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        found: int = probe.getsockname()[1]
        return found


def launched_by_mpi(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether an MPI launcher started this process; HPCBACKMAP_MPI=1 says so for one that does not."""
    names = [item.size for item in LAUNCHERS.values() if item.mpi] + [PMIX_RANK]
    return environ.get("HPCBACKMAP_MPI") == "1" or any(environ.get(name) for name in names)


def asked_ranks(environ: Mapping[str, str] = os.environ) -> int:
    """Ranks that an MPI launcher or a step of Slurm started; 1 if none did. Raises ConfigError."""
    for name, item in LAUNCHERS.items():
        size = environ.get(item.size) if item.mpi or name == "Slurm" else None
        if size:
            if not size.isdigit():
                raise ConfigError(
                    f"{item.size}={size}: to be a number; unset what an earlier job has left"
                )
            return int(size)
    return 1
