"""Files and folders: writes that are on the disk when they return, and what their failure is called."""

import os
import textwrap
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.runtime.errors import HpcbackmapError, OutputError

__all__ = ["flush", "is_url", "reason", "writing"]


def is_url(place: str | Path) -> bool:
    return "://" in str(place)


def reason(error: Exception) -> str:
    """What an object store's client says, in a line."""
    return textwrap.shorten(str(error) or type(error).__name__, 150, placeholder=" …")


@contextmanager
def writing(path: str | Path):
    """Turns a failed write (full disk, no permission, an object store that does not answer) into OutputError
    that names ``path``.
    """
    try:
        yield
    except HpcbackmapError:
        raise
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # clients of object stores have error classes of their own
        if not is_url(path):
            raise
        raise OutputError(f"{path}: {reason(error)}") from None


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
