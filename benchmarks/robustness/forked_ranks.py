"""Ranks forked from one process that has imported everything: many trainings, imported once."""

import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

IMPORTS = (
    "deepspeed.ops",
    "torch._dynamo",  # torch's optimisers import it when they are made
    "torch.utils.tensorboard",
    "hpcbackmap.training.trainer",
)
LONGEST = 60.0
"""Seconds that a rank may live on after the other one is killed."""


def fork_ranks(size: int, action: Callable[[int], None], log: Path) -> list[int]:
    """Process numbers of ``size`` ranks that run ``action(rank)``, in one process group, and append to a log.

    They find each other as under torchrun. A process that forks must not have trained itself.
    """
    port, ranks = _free_port(), []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, ranks[0] if ranks else 0)
            _become(rank, size, port, log)
            _call(action, rank)
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it did, or it is gone
            os.setpgid(pid, ranks[0] if ranks else pid)
        ranks.append(pid)
    return ranks


def _become(rank: int, size: int, port: int, log: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def _call(action: Callable[[int], None], rank: int) -> None:
    import traceback

    code = 1
    try:
        action(rank)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(ranks: list[int]) -> tuple[list[int], float]:
    """Exit codes, minus the signal where there was one, and seconds between the first end and the last.

    What outlives the first by `LONGEST` is killed.
    """
    codes: dict[int, int] = {}
    first = None
    while len(codes) < len(ranks):
        for pid in ranks:
            if pid not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(ended[1])
                first = first or time.monotonic()
        if first and time.monotonic() - first > LONGEST:
            os.killpg(ranks[0], signal.SIGKILL)
        time.sleep(0.01)
    return [codes[pid] for pid in ranks], time.monotonic() - first


def import_all() -> None:
    """Everything that a rank imports, on the CPU, without starting a thread."""
    os.environ.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    os.environ.update(TORCHINDUCTOR_COMPILE_THREADS="1")
    for name in IMPORTS:
        importlib.import_module(name)
