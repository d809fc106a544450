"""What a training that cannot go on says last: why, and which checkpoint is left."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.runtime.errors import DivergedError, OutputError, ResourceError
from hpcbackmap.runtime.files import UNWRITABLE
from hpcbackmap.training.checkpoints.checkpoints import last_published

__all__ = ["explained"]

LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "failed to recv")
"""Words of torch's errors where another rank does not answer."""


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Work that needs a disk with space and all ranks; ``folder`` has its checkpoints.

    Raises OutputError where something cannot be written, ResourceError where another rank has ended. Of a
    training that diverges the last good checkpoint is told.
    """
    try:
        yield
    except DivergedError as error:
        tag = last_published(folder)
        good = "there is no checkpoint yet" if tag is None else f"the last good checkpoint is {tag}"
        raise DivergedError(f"{error}; nothing was published, {good}") from None
    except OutputError as error:
        raise OutputError(f"{error}; {_left(folder)}") from None
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        where = error.filename or folder.parent
        raise OutputError(f"{where}: {error.strerror}; {_left(folder)}") from None
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise ResourceError(
            f"another rank has ended or does not answer, see its log; {_left(folder)}"
        ) from error


def _left(folder: Path) -> str:
    tag = last_published(folder)
    if tag is None:
        return "there is no checkpoint yet, the same command starts over"
    return f"checkpoint {tag} is whole, the same command continues after it"
