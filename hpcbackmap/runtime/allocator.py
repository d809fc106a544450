"""Keep freed memory in the process: large tensors come and go, and every fresh page costs a fault."""

import ctypes
import sys
from typing import Any

__all__ = ["give_back_memory", "keep_freed_memory"]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = (1 << 30, 1 << 25)
"""Bytes to keep, the most that is wanted first: older glibc (before 2.35) refuses more than 32 MiB, and one
threshold without the other is worse than none, since it ends glibc's own adaptation of both."""


def keep_freed_memory(library: Any = None) -> int:
    """Tell glibc's malloc not to give blocks below so many bytes back at once; returns the bytes.

    library: instead of this process's C library. 0 where nothing was done, with other libraries.
    """
    mallopt = _function("mallopt", library)
    if mallopt is None:
        return 0
    for size in KEPT:
        if mallopt(M_MMAP_THRESHOLD, size) == 1:
            mallopt(M_TRIM_THRESHOLD, size)
            return size
    return 0


def give_back_memory() -> None:
    """Give what is free in the process back to the kernel, where the C library can."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str, library: Any = None) -> Any:
    if library is None and not sys.platform.startswith("linux"):
        return None
    return getattr(library or ctypes.CDLL(None), name, None)
