"""Frames of a store by number, at any resolution, in bounded pieces."""

from collections.abc import Iterator, Sequence

import numpy as np

from hpcbackmap.store.store import FrameStore

__all__ = ["MOST_FRAMES", "read_blocks", "read_frames"]

MOST_FRAMES = 256
"""Frames that are judged at once, however small: their histograms take more memory than a small protein."""


def read_blocks(
    store: FrameStore, system: str, resolution: str, start: int, stop: int, size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """First frame and positions [n, particles, 3] of consecutive blocks."""
    for first in range(start, stop, size):
        yield first, _read(store, system, resolution, range(first, min(first + size, stop)))


def read_frames(store: FrameStore, system: str, resolution: str, frames: np.ndarray) -> np.ndarray:
    """Positions [n, particles, 3] of the numbered frames of a system."""
    wanted = np.unique(frames)
    return _read(store, system, resolution, wanted.tolist())[np.searchsorted(wanted, frames)]


def _read(store: FrameStore, system: str, resolution: str, frames: Sequence[int]) -> np.ndarray:
    """A stored resolution is read, another is coarsened from the heavy atoms."""
    stored = store.system(system)
    if resolution in store.resolutions:
        return stored.read_at(resolution, frames)
    return stored.ladder.coarsen(stored.read_at("fg", frames))[resolution]
