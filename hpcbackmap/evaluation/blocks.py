"""Blocks of a bootstrap: frames close in time resemble each other, so they are drawn together.

A moving part of a trajectory of n frames is cut into about sqrt(n) blocks of sqrt(n) frames, a
block length that grows with n as the theory of the block bootstrap asks (Künsch 1989), and is long
enough for slow proteins. Many small systems are blocks of their own.
"""

import numpy as np

__all__ = ["MAX_BLOCKS", "block_numbers"]

MAX_BLOCKS = 200


def block_numbers(
    frames: list[np.ndarray], sources: list[list[tuple[int, int]]]
) -> list[np.ndarray]:
    """Block of each frame, numbered through all systems: per system int64 [F].

    frames: per system the rising frame numbers [F]. sources: per system the frame ranges (start,
    stop) of its files; no block crosses from one into another, unless there are more than
    `MAX_BLOCKS` in all: then neighbours are joined.
    """
    numbers, count = [], 0
    for chosen, ranges in zip(frames, sources, strict=True):
        own = np.empty(len(chosen), dtype=np.int64)
        for start, stop in ranges:
            inside = np.flatnonzero((chosen >= start) & (chosen < stop))
            own[inside] = count + np.arange(len(inside)) // max(1, int(len(inside) ** 0.5))
            count = own[inside[-1]] + 1 if len(inside) else count
        numbers.append(own)
    if count > MAX_BLOCKS:
        numbers = [own * MAX_BLOCKS // count for own in numbers]
    return numbers
