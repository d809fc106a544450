"""Batches of frames in an order that depends on the seed alone, read in blocks, within a memory budget.

The order of an epoch (`order.py`) is read in windows as large as the budget allows. Blocks (runs of frames
that are stored together) are shuffled and put in line; a window of the line is cut into ``batch_size``
lanes, and a batch takes one frame from each. So a batch mixes frames from all over the window, and a rank,
which owns some lanes, reads only its part of it. Where systems have clusters, an epoch shows one frame of
each cluster.

One thread per rank reads the next window while this one is used: Zarr decodes outside the interpreter's
lock, so worker processes would only add copies, and a way to hang. docs/format.md has the figures.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.store.order import ClusterOrder, FrameOrder, Order
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import FrameStore
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["FrameStream", "StreamBatch"]

BLOCK_MB = 4
"""Larger blocks are read no faster."""
WINDOW_BLOCKS = 32
"""Blocks that a window holds at least, unless chunks are too large for it."""
TOGETHER = 64
"""Blocks to read at once at most, if they are small."""


@dataclass(frozen=True)
class StreamBatch:
    """One rank's share of a batch; F frames of one system, or one frame each of several (then F is 1).

    fine [F, N, 3], coarse [F, B, 3]: float32, nm, particles of all ``systems`` (names) one after another.
    frames: number in the store of each frame, int64. position: global sample counter after the batch.
    """

    fine: np.ndarray
    coarse: np.ndarray
    systems: list[str]
    frames: np.ndarray
    position: int


class FrameStream:
    """Iterates over `StreamBatch`es: endless over epochs if shuffled, else one pass.

    batch_size: samples per batch over all ranks; each rank takes an equal part (to one sample), in order.
    start: global sample counter to begin at. The sequence of global batches is a function of ranges, batch
    size, budget, seed and clusters; rank, world and start only say which part of it is read here.
    clusters: of systems, by name. With any, an epoch is one frame of each cluster, and a system without is
    its own cluster.
    Unshuffled, the last batch may be shorter; if it would leave a rank without samples, it is joined to
    the one before.
    Raises ConfigError if the batch is smaller than ``world`` or larger than the budget, InputError if
    there are no frames or not one for every rank.
    """

    def __init__(
        self,
        store: FrameStore,
        ranges: list[FrameRange],
        fine: str,
        coarse: str,
        batch_size: int,
        seed: int,
        rank: int,
        world: int,
        budget_mb: float,
        shuffle: bool = True,
        start: int = 0,
        clusters: dict[str, str] | None = None,
    ):
        self.store, self.fine, self.coarse = store, fine, coarse
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.shuffle, self.start = shuffle, start
        self._budget_mb = budget_mb
        self._blocks = [block for part in ranges for block in self._cut(part)]
        self._order = self._make_order(seed, clusters)
        self.n_samples = self._order.n_samples
        if batch_size < world:
            raise ConfigError(
                f"a batch of {batch_size} frames cannot be divided over {world} ranks"
            )
        left = self.n_samples if shuffle else self.n_samples - start
        if self.n_samples == 0 or 0 < left < world:
            raise InputError(f"{store.path}: {left} frames to stream for {world} rank(s)")
        self._last_batch = -1 if shuffle else max(0, (left - world) // batch_size)
        self.window = self._window_samples({part.system for part in ranges})

    def __iter__(self) -> Iterator[StreamBatch]:
        samples = self._samples()
        position = self.start
        while self.shuffle or position < self.n_samples:
            size = int(self._share(np.array([position]))[1][0])
            count = (self.rank + 1) * size // self.world - self.rank * size // self.world
            picked = [next(samples) for _ in range(count)]
            position += size
            yield self._batch(picked, position)

    def _make_order(self, seed: int, clusters: dict[str, str] | None) -> Order:
        lengths = np.array([block.stop - block.start for block in self._blocks], dtype=np.int64)
        if clusters and self.shuffle:
            return ClusterOrder([block.system for block in self._blocks], lengths, clusters, seed)
        return FrameOrder(lengths, self.batch_size, seed, self.shuffle)

    def _cut(self, part: FrameRange) -> Iterator[FrameRange]:
        """The blocks of a range; they begin and end where stored chunks of the finer resolution do."""
        size = self._block_frames(part.system)
        start = part.start
        while start < part.stop:
            stop = min(part.stop, (start // size + 1) * size)
            yield FrameRange(part.system, start, stop)
            start = stop

    def _block_frames(self, system: str) -> int:
        """A stored chunk, doubled while a window still holds enough blocks to mix."""
        size = self.store.system(system).block_frames(self.fine)
        most = min(BLOCK_MB, self._budget_mb / 2 / WINDOW_BLOCKS)
        while 2 * size * self._frame_mb(system) <= most:
            size *= 2
        return size

    def _frame_mb(self, system: str) -> float:
        stored = self.store.system(system)
        return 1e-6 * frame_bytes(stored.n_particles(self.fine) + stored.n_particles(self.coarse))

    def _window_samples(self, systems: set[str]) -> int:
        """Samples per window, a multiple of the batch: two windows fit into the budget."""
        batch_mb = self.batch_size * max(self._frame_mb(name) for name in systems)
        batches = int(self._budget_mb / (2 * batch_mb))
        if batches == 0:
            raise ConfigError(
                f"store.budget_mb is {self._budget_mb:g}; two batches of {self.batch_size} frames "
                f"need {2 * batch_mb:.3g}"
            )
        return batches * self.batch_size

    def _share(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether global samples belong to this rank, and the sizes of the batches that they are in."""
        batch = (numbers - self.start) // self.batch_size
        if not self.shuffle:
            batch = np.minimum(batch, self._last_batch)
        begin = self.start + batch * self.batch_size
        size = np.where(batch == self._last_batch, self.n_samples - begin, self.batch_size)
        slot = numbers - begin
        return (slot >= self.rank * size // self.world) & (
            slot < (self.rank + 1) * size // self.world
        ), size

    def _samples(self) -> Iterator[tuple[Any, ...]]:
        """This rank's samples: (system, frame, fine [1, N, 3], coarse [1, B, 3]). Reads a window ahead."""
        with ThreadPoolExecutor(max_workers=1) as reader:
            windows = self._windows()
            ahead = reader.submit(next, windows, None)
            while (window := ahead.result()) is not None:
                ahead = reader.submit(next, windows, None)
                yield from window
                del window

    def _windows(self) -> Iterator[Iterator[tuple[Any, ...]]]:
        """Loaded windows, from ``start`` on."""
        epoch, offset = divmod(self.start, self.n_samples)
        while True:
            for first in range(offset // self.window * self.window, self.n_samples, self.window):
                size = min(self.window, self.n_samples - first)
                numbers = epoch * self.n_samples + first + np.arange(size)
                wanted = (numbers >= self.start) & self._share(numbers)[0]
                if wanted.any():
                    blocks, rows = self._order.places(epoch, first, size)
                    yield self._load(blocks[wanted], rows[wanted])
            epoch, offset = epoch + 1, 0
            if not self.shuffle:
                return

    def _load(self, blocks: np.ndarray, rows: np.ndarray) -> Iterator[tuple[Any, ...]]:
        """Read what these places need, a few blocks at a time; then samples in their order."""
        pieces = {}
        for group in self._groups(np.unique(blocks)):
            spans = []
            for number in group:
                used = rows[blocks == number]
                spans.append((self._blocks[number], int(used.min()), int(used.max()) + 1))
            arrays = self.store.read_together(
                [
                    (block.system, level, block.start + first, block.start + stop)
                    for block, first, stop in spans
                    for level in (self.fine, self.coarse)
                ]
            )
            for i, (number, (block, first, _)) in enumerate(zip(group, spans, strict=True)):
                pieces[number] = (block, first, arrays[2 * i], arrays[2 * i + 1])
        return self._pick(pieces, blocks, rows)

    def _groups(self, numbers: np.ndarray) -> Iterator[list[int]]:
        """Blocks to read at once: four large ones, or many small ones."""
        most = self._budget_mb / 2 / WINDOW_BLOCKS * 4
        group, megabytes = list[int](), 0.0
        for number in numbers:
            block = self._blocks[number]
            size = self._frame_mb(block.system) * (block.stop - block.start)
            if group and (megabytes + size > most or len(group) == TOGETHER):
                yield group
                group, megabytes = [], 0.0
            group.append(int(number))
            megabytes += size
        yield group

    @staticmethod
    def _pick(
        pieces: dict[int, tuple[Any, ...]], blocks: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[Any, ...]]:
        for number, row in zip(blocks, rows, strict=True):
            block, first, fine, coarse = pieces[number]
            here = slice(row - first, row - first + 1)
            yield block.system, block.start + int(row), fine[here], coarse[here]

    def _batch(self, picked: list[tuple[Any, ...]], position: int) -> StreamBatch:
        names, frames, *both = zip(*picked, strict=True)
        offsets = [self.store.system(name).first_frame for name in names]
        alike = len(set(names)) == 1
        fine, coarse = (np.concatenate(parts, axis=0 if alike else 1) for parts in both)
        systems = [names[0]] if alike else list(names)
        return StreamBatch(fine, coarse, systems, np.add(offsets, frames), position)
