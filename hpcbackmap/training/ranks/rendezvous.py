"""The ranks of one training find each other: who does not come is named, and nobody waits for ever."""

import json
import logging
import os
import re
import socket
import time
import warnings
import zlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import Store, TCPStore

from hpcbackmap.runtime.errors import ConfigError, ResourceError
from hpcbackmap.runtime.launcher import free_port
from hpcbackmap.runtime.roll_call import seconds_of, waiting_seconds
from hpcbackmap.training.ranks.watch import PATIENCE
from hpcbackmap.training.ranks.world import World, pick_device, rank_names

__all__ = [
    "SECONDS_VARIABLE",
    "count_gpus",
    "join",
    "meet",
    "meeting_point",
    "reconnect",
    "take_gpu",
]

SECONDS_VARIABLE = "HPCBACKMAP_MEETING_SECONDS"
SECONDS = 300.0
COLLECTIVE = 1800.0
"""Seconds that ranks wait in a collective at least; `ranks.watch` comes before."""
GRACE = 10.0
"""Seconds that the answer of rank 0 may take to reach the others."""


def join(world: World, purpose: str) -> torch.device:
    """Meet the other ranks; returns the device of this one.

    purpose: what the ranks want to do together; ranks that came for something else are strangers.
    Sets the variables that DeepSpeed reads (RANK, WORLD_SIZE, LOCAL_RANK). Compiles nothing: DeepSpeed's
    shared-memory collective for CPUs is left out, and so is torch's compiler. A second call in the same
    process reuses the first call's process group.

    Raises ResourceError where a rank is missing or twice, where the port is taken, and where a GPU is
    missing or not free.
    """
    n_gpus = count_gpus(os.environ)
    device = pick_device(world, n_gpus, gpus_bound="SLURM_GPUS_PER_TASK" in os.environ)
    if n_gpus:
        take_gpu(device)
    elif "OMP_NUM_THREADS" not in os.environ and world.size > 1:
        torch.set_num_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
    os.environ.update(
        RANK=str(world.rank),
        WORLD_SIZE=str(world.size),
        LOCAL_RANK=str(device.index or 0 if n_gpus else world.local_rank),
    )
    if torch.distributed.is_initialized():
        return device
    store = _store(world, purpose)
    _met[:] = [store]
    backend = "nccl" if n_gpus else "gloo"
    torch.distributed.init_process_group(
        backend,
        store=store,
        rank=world.rank,
        world_size=world.size,
        timeout=timedelta(seconds=max(COLLECTIVE, (PATIENCE + 1) * waiting_seconds())),
    )
    if not n_gpus:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # An optimiser of DeepSpeed's that is not used here asks for torch's compiler, seconds to import.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    import deepspeed
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, verbose=False)
    return device


_met: list[Any] = []
"""The store through which the ranks of this process met."""


def reconnect() -> torch.distributed.Store:
    """A connection of its own to the store of `join`, for another thread of a rank of several.

    Raises RuntimeError where nobody serves it.
    """
    (store,) = _met
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    found = torch.distributed.TCPStore(
        store.host,
        store.port,
        is_master=False,
        timeout=timedelta(seconds=seconds_of(SECONDS_VARIABLE, SECONDS)),
        wait_for_workers=False,
    )
    return torch.distributed.PrefixStore(f"watch/{_attempt()}", found)


def count_gpus(environ: Mapping[str, str]) -> int:
    """GPUs of this node that torch sees; 0 where DS_ACCELERATOR=cpu says that none is wanted.

    Raises ResourceError where Slurm gave some and torch sees none: a training that was meant for GPUs would
    go on for days on the CPU.
    """
    if environ.get("DS_ACCELERATOR") == "cpu":
        return 0
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    given = environ.get("SLURM_GPUS_ON_NODE", "0")
    if given != "0":
        raise ResourceError(
            f"{socket.gethostname()}: Slurm gave {given} GPU(s), torch {torch.__version__} sees none; install "
            "torch for this CUDA driver, or set DS_ACCELERATOR=cpu to train on the CPU"
        )
    return 0


def take_gpu(device: torch.device) -> None:
    """Make it the current device. Raises ResourceError if others hold it or its memory."""
    torch.cuda.set_device(device)
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise ResourceError(
            f"{socket.gethostname()}: GPU {device.index} is not free ({str(error).splitlines()[0]}); free it, "
            "or choose another by CUDA_VISIBLE_DEVICES"
        ) from None


def _store(world: World, purpose: str) -> torch.distributed.Store:
    """The store of `meet`; a process alone needs no port."""
    if world.size == 1:
        return torch.distributed.HashStore()
    address, port = meeting_point(world, os.environ) or _ask_mpi(world)
    return meet(world, address, port, purpose)


def meeting_point(world: World, environ: Mapping[str, str]) -> tuple[str, int] | None:
    """Host and port where the ranks meet, as the variables tell; None where MPI has to be asked.

    MASTER_ADDR and MASTER_PORT of the user come first. Under srun it is the first node of the step, and a
    port from 20000 to 29999 that depends on job and step.
    """
    address, port = environ.get("MASTER_ADDR"), environ.get("MASTER_PORT")
    if port is not None and not (port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"MASTER_PORT={port} is no port; give a number from 1 to 65535")
    if address and port:
        return address, int(port)
    if world.launcher == "torchrun":
        raise ResourceError("RANK and WORLD_SIZE are set; set MASTER_ADDR and MASTER_PORT as well")
    if world.launcher != "Slurm":
        return None
    nodes = environ.get("SLURM_STEP_NODELIST", "")
    if not address and not nodes:
        raise ResourceError("under srun without SLURM_STEP_NODELIST, set MASTER_ADDR")
    step = ".".join(environ.get(f"SLURM_{key}", "") for key in ("JOB_ID", "STEP_ID"))
    chosen = 20000 + zlib.crc32(f"{step} on {nodes}".encode()) % 10000
    return address or _first_host(nodes), int(port or chosen)


def _first_host(nodes: str) -> str:
    """``gpu01`` of Slurm's ``gpu[01-04,07],cpu1``."""
    found = re.match(r"([^\[,]*)(?:\[(\w+)[^\]]*\]([^\[,]*))?", nodes)
    prefix, first, suffix = found.groups("") if found else ("", "", "")
    return prefix + first + suffix


def _ask_mpi(world: World) -> tuple[str, int]:
    """Under mpirun, rank 0 tells the others over MPI where it is."""
    from hpcbackmap.runtime.mpi import get_comm

    comm = get_comm()
    if comm.size != world.size:
        raise ResourceError(
            f"{world.launcher} started {world.size} ranks, mpi4py sees {comm.size}; use the mpirun "
            "that belongs to mpi4py, or set MASTER_ADDR and MASTER_PORT"
        )
    found: tuple[str, int] = comm.bcast(
        (socket.gethostname(), free_port()) if comm.rank == 0 else None
    )
    return found


def meet(world: World, address: str, port: int, purpose: str) -> torch.distributed.Store:
    """The store through which the ranks go on to talk, once all of them have come to it.

    Rank 0 serves it at ``address:port`` (under torchrun its agent does) and tells the others who came.
    Raises ResourceError on every rank where some rank does not come in time, where a rank comes twice, and
    where the port is taken or cannot be reached.
    """
    seconds = seconds_of(SECONDS_VARIABLE, SECONDS)
    deadline = time.monotonic() + seconds
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    whole = _connect(world, address, port, seconds, serve=world.rank == 0 and not served)
    store = torch.distributed.PrefixStore(f"{purpose}/{_attempt()}", whole)
    if store.add(f"rank/{world.rank}", 1) > 1:
        raise ResourceError(
            f"two processes say that they are rank {world.rank} of {world.size} at {address}:{port}; "
            "start the ranks with one launcher only"
        )
    missing = _missing(store, world.size, deadline) if world.rank == 0 else None
    missing = _tell(store, world, missing, deadline, f"{address}:{port}")
    if missing:
        came = [rank for rank in range(world.size) if rank not in missing]
        raise ResourceError(
            f"{rank_names(missing)} of {world.size} did not come to {address}:{port} within {seconds:g} s "
            f"({rank_names(came)} did): see the log of {rank_names(missing[:1])}; if it only starts slowly, "
            f"set {SECONDS_VARIABLE}"
        )
    return torch.distributed.PrefixStore("ranks", store)


def _attempt() -> str:
    """Which start of its ranks by torchrun this is; its store outlives them."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def _connect(world: World, address: str, port: int, seconds: float, serve: bool) -> TCPStore:
    try:
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError, OverflowError):
        raise ResourceError(
            f"no host is called {address!r}; set MASTER_ADDR to the node of rank 0"
        ) from None
    try:
        return torch.distributed.TCPStore(
            address,
            port,
            world_size=world.size,
            is_master=serve,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        if serve and "EADDRINUSE" in str(error):
            raise ResourceError(
                f"port {port} of {socket.gethostname()} is in use, by another training perhaps; set "
                "MASTER_PORT to a free one (deepspeed, torchrun: --master_port)"
            ) from None
        if serve:
            raise ResourceError(f"{address}:{port}: {str(error).splitlines()[0]}") from None
        raise ResourceError(
            f"rank 0 of {world.size} did not come to {address}:{port} within {seconds:g} s: see the log of "
            f"rank 0; if it only starts slowly, set {SECONDS_VARIABLE}"
        ) from None


def _missing(store: Store, size: int, deadline: float) -> list[int]:
    """Ranks that have not come by the deadline; returns as soon as all have."""
    awaited = list(range(size))
    while awaited and time.monotonic() < deadline:
        if store.check([f"rank/{awaited[0]}"]):
            awaited.pop(0)
        else:
            time.sleep(0.05)
    return [rank for rank in awaited if not store.check([f"rank/{rank}"])]


def _tell(
    store: Store, world: World, missing: list[int] | None, deadline: float, place: str
) -> list[int]:
    """Rank 0's list, on every rank that came. Rank 0 serves the store, so it leaves last."""
    if world.rank > 0:
        patience = max(0.0, deadline - time.monotonic()) + GRACE
        try:
            store.wait(["missing"], timedelta(seconds=patience))
            told: list[int] = json.loads(store.get("missing"))
            store.add("told", 1)
        except RuntimeError:
            raise ResourceError(
                f"rank 0 of {world.size} came to {place} and left: see its log"
            ) from None
        return told
    missing = missing or []
    store.set("missing", json.dumps(missing))
    until = time.monotonic() + GRACE
    while missing and time.monotonic() < until:
        if store.add("told", 0) >= world.size - len(missing) - 1:
            break
        time.sleep(0.05)
    return missing
