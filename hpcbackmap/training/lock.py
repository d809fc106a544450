"""One training per stage folder at a time."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.errors import ResourceError
from hpcbackmap.training.ranks import World, on_rank_zero

__all__ = ["only_training"]


@contextmanager
def only_training(folder: Path, world: World) -> Iterator[None]:
    """Hold the folder's lock on rank 0; it falls with the process, however that dies.

    Raises ResourceError if another process has it: a second job, or ranks whose launcher we did not
    recognise and that each believe to be alone.
    """
    held = []
    on_rank_zero(world, lambda: held.append(_acquire(folder / ".lock")))
    try:
        yield
    finally:
        for file in held:
            file.close()


def _acquire(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise ResourceError(
            f"{path.parent} is being trained by {holder}; if one launcher started both, every rank "
            "believes to be 0 of 1: use a launcher we know (torchrun, deepspeed, srun, mpirun)"
        ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
