"""Frames of a store by number, at any resolution, in bounded pieces."""

from collections.abc import Iterator

import numpy as np

__all__ = ["MOST_FRAMES", "read_blocks", "read_frames"]

MOST_FRAMES = 256
"""Frames that are judged at once, however small: their histograms take more memory than a small protein."""


def read_blocks(
    store, system: str, resolution: str, start: int, stop: int, size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """First frame and positions [n, particles, 3] of consecutive blocks."""
    for first in range(start, stop, size):
        yield first, _read(store, system, resolution, first, min(first + size, stop))


def read_frames(store, system: str, resolution: str, frames: np.ndarray) -> np.ndarray:
    """Positions [n, particles, 3] of the numbered frames of a system, read in runs."""
    wanted = np.unique(frames)
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
    found = np.concatenate([_read(store, system, resolution, run[0], run[-1] + 1) for run in runs])
    return found[np.searchsorted(wanted, frames)]


def _read(store, system: str, resolution: str, start: int, stop: int) -> np.ndarray:
    """A stored resolution is read, another is coarsened from the heavy atoms."""
    stored = store.system(system)
    if resolution in store.resolutions:
        return stored.read(resolution, int(start), int(stop))
    return stored.ladder.coarsen(stored.read("fg", int(start), int(stop)))[resolution]
