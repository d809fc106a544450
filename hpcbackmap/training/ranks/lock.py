"""One training per stage folder at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.runtime.errors import ResourceError
from hpcbackmap.runtime.files import Lock, is_held
from hpcbackmap.training.ranks.world import World, on_rank_zero

__all__ = ["is_being_trained", "only_training"]

LOCK = ".lock"


@contextmanager
def only_training(folder: Path, world: World) -> Iterator[None]:
    """Hold the folder's lock on rank 0; it falls with the process, however that dies.

    Raises ResourceError if another process has it: a second job, or ranks whose launcher we did not
    recognise and that each believe to be alone.
    """
    held: list[Lock] = []
    on_rank_zero(world, lambda: held.append(_acquire(folder)))
    try:
        yield
    finally:
        for lock in held:
            lock.close()


def is_being_trained(folder: Path) -> bool:
    """Whether some process holds the folder's lock."""
    return is_held(folder / LOCK)


def _acquire(folder: Path) -> Lock:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = Lock.take(folder / LOCK, folder, doing="training")
    except ResourceError as error:
        raise ResourceError(
            f"{error}; if one launcher started both, every rank believes to be 0 of 1: use a launcher we "
            "know (torchrun, deepspeed, srun, mpirun)"
        ) from None
    lock.sign()
    return lock
