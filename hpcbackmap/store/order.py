"""The order in which an epoch shows frames, a function of seed and epoch alone.

A place is one frame: the number of a block (a run of frames that are stored together) and a row of it.
"""

from collections import defaultdict
from typing import Protocol

import numpy as np

__all__ = ["ClusterOrder", "FrameOrder", "Order"]


class Order(Protocol):
    """n_samples: frames per epoch."""

    n_samples: int

    def places(self, epoch: int, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Block and row, both int64 [size], of samples ``first`` to ``first + size`` of an epoch."""
        ...


class FrameOrder:
    """Every frame once per epoch: in stored order, or mixed.

    Mixed: blocks are shuffled and put in line; each piece of the line that is asked for is cut into
    ``lanes`` equal lanes, every lane is shuffled, and the lanes take turns.
    """

    def __init__(self, lengths: np.ndarray, lanes: int, seed: int, shuffle: bool):
        """lengths: frames of each block, int64 [blocks]."""
        self.n_samples = int(lengths.sum())
        self._lengths, self._lanes, self._seed, self._shuffle = lengths, lanes, seed, shuffle

    def places(self, epoch: int, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        order = self._block_order(epoch)
        lengths = self._lengths[order]
        ends = np.cumsum(lengths)
        line = first + self._mixed(epoch, first, size)
        turns = np.searchsorted(ends, line, side="right")
        return order[turns], line - (ends - lengths)[turns]

    def _block_order(self, epoch: int) -> np.ndarray:
        count = len(self._lengths)
        if not self._shuffle:
            return np.arange(count)
        return np.random.default_rng([self._seed, epoch]).permutation(count)

    def _mixed(self, epoch: int, first: int, size: int) -> np.ndarray:
        places = np.arange(size)
        if not self._shuffle:
            return places
        generator = np.random.default_rng([self._seed, epoch, first])
        whole = size // self._lanes * self._lanes
        lanes = places[:whole].reshape(self._lanes, -1)
        mixed = generator.permuted(lanes, axis=1).T.ravel()
        return np.concatenate([mixed, generator.permutation(places[whole:])])


class ClusterOrder:
    """One frame of every cluster of systems per epoch, so that large families do not rule.

    The systems of a cluster take turns, each once in as many epochs as there are; which of its frames is
    shown is drawn anew each time.
    """

    def __init__(
        self, systems: list[str], lengths: np.ndarray, clusters: dict[str, str], seed: int
    ):
        """systems: of each block. clusters: by system; a system without one is its own."""
        members: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for block, system in enumerate(systems):
            key = f"cluster {clusters[system]}" if system in clusters else f"system {system}"
            members[key][system].append(block)
        self._members = [
            [np.array(blocks) for blocks in members[key].values()] for key in sorted(members)
        ]
        self.n_samples = len(self._members)
        self._lengths, self._seed = lengths, seed

    def places(self, epoch: int, first: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng([self._seed, epoch]).permutation(self.n_samples)
        drawn = [self._draw(epoch, int(cluster)) for cluster in order[first : first + size]]
        blocks, rows = np.array(drawn, dtype=np.int64).T
        return blocks, rows

    def _draw(self, epoch: int, cluster: int) -> tuple[int, int]:
        systems = self._members[cluster]
        cycle, turn = divmod(epoch, len(systems))
        chosen = np.random.default_rng([self._seed, cluster, cycle]).permutation(len(systems))[turn]
        blocks = systems[chosen]
        ends = np.cumsum(self._lengths[blocks])
        frame = int(np.random.default_rng([self._seed, epoch, cluster, 1]).integers(ends[-1]))
        place = int(np.searchsorted(ends, frame, side="right"))
        return blocks[place], frame - (ends[place - 1] if place else 0)
