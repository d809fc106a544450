"""One training per stage folder at a time."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.runtime.errors import ResourceError
from hpcbackmap.training.ranks.world import World, on_rank_zero

__all__ = ["is_being_trained", "only_training"]

log = logging.getLogger(__name__)

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What flock says on file systems mounted without it, as some of Lustre and NFS are."""


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


def is_being_trained(folder: Path) -> bool:
    """Whether some process holds the folder's lock."""
    try:
        with (folder / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        pass
    return False


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
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        log.warning("%s: no file locks here, so a second training is not noticed", path.parent)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
