"""Who has not come to a collective of MPI, told once in a while by the ranks that wait in it."""

import logging
import os
import time
from typing import Any

from hpcbackmap.runtime.errors import ConfigError

__all__ = ["WAITING_VARIABLE", "RollCall", "seconds_of", "waiting_seconds"]

log = logging.getLogger(__name__)

WAITING_VARIABLE = "HPCBACKMAP_WAITING_SECONDS"
WAITING_SECONDS = 600.0
"""After so long in a collective the ranks that have not come to it are named."""
GRACE_SECONDS = 2.0
"""That the ranks have to say that they wait, too."""
TELLERS = 4
"""Ranks, the first, that may say who has not come; all others tell these that they are there."""


class RollCall:
    """Who waits in a collective, asked among the ranks when it takes long."""

    def __init__(self, mpi: Any, comm: Any):
        self._mpi, self._comm = mpi, comm.Dup()
        self._number = 0
        self._sent: list[Any] = []
        self.patience = waiting_seconds()

    def met(self) -> None:
        """All ranks have come to a collective."""
        self._number += 1

    def call(self, request: Any, seconds: float) -> None:
        """Tell the first ranks that this one waits; the first of those that do names who does not."""
        comm, number = self._comm, self._number
        tellers = range(min(TELLERS, comm.size))
        name = self._mpi.Get_processor_name()
        self._sent += [
            comm.isend((number, name), dest=rank) for rank in tellers if rank != comm.rank
        ]
        here, until = {comm.rank}, time.monotonic() + GRACE_SECONDS
        while comm.rank in tellers and time.monotonic() < until and not request.Test():
            status = self._mpi.Status()
            if not comm.Iprobe(status=status):
                time.sleep(0.01)
                continue
            told, _ = comm.recv(source=status.Get_source())
            if told == number:
                here.add(status.Get_source())
        missing = sorted(set(range(comm.size)) - here)
        if missing and min(here) == comm.rank and comm.rank in tellers and not request.Test():
            names = ", ".join(map(str, missing[:16])) + (", …" if len(missing) > 16 else "")
            log.warning(
                "waiting for %.0f s for rank(s) %s of %d, which do not come: hung, or at long work; the "
                "others go on when they do",
                seconds,
                names,
                comm.size,
            )


def waiting_seconds() -> float:
    """After how long a rank that does not come is named. Raises ConfigError."""
    return seconds_of(WAITING_VARIABLE, WAITING_SECONDS)


def seconds_of(variable: str, default: float) -> float:
    """Seconds that a variable of the environment says. Raises ConfigError for anything else."""
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise ConfigError(f"{variable}={text}: give a number of seconds")
    return seconds
