"""From stored frames to what a stage eats: positions, system and noise on the device."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.stages.base import Stage, System, collate
from hpcbackmap.stages.centring import about, centre_of, centred_together
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.store.split import FrameRange
from hpcbackmap.store.store import FrameStore
from hpcbackmap.store.stream import FrameStream, StreamBatch
from hpcbackmap.training.ranks.world import World
from hpcbackmap.trajectories.units import frame_bytes

__all__ = ["Feed", "StageInputs"]


KEPT_BATCHES = 64
"""Descriptions of several systems as one that are kept: with few systems the same ones meet again."""


@dataclass(frozen=True)
class StageInputs:
    """fine [F, N, 3], coarse [F, B, 3], noise [F, B, L] on the device; n_frames counts F x systems. Each
    molecule is about the centre of its beads.

    position: global sample counter after the batch.
    """

    fine: Tensor
    coarse: Tensor
    system: System
    noise: Tensor
    n_frames: int
    position: int = 0

    def arguments(self) -> tuple[Any, ...]:
        return self.fine, self.coarse, self.system, self.noise


class Feed:
    """Inputs of one stage from one store. Noise depends on seed, key and global frame, never on ranks.

    clusters: of systems, by name; see `FrameStream`.
    """

    def __init__(
        self,
        store: FrameStore,
        stage: Stage[Any],
        seed: int,
        device: torch.device,
        clusters: dict[str, str] | None = None,
    ):
        self.store, self.stage, self.seed, self.device = store, stage, seed, device
        self.clusters = clusters
        self._described: dict[str, System] = {}
        self._single: dict[str, System] = {}
        self._joined: dict[tuple[str, ...], System] = {}

    def stream(
        self,
        ranges: list[FrameRange],
        batch_size: int,
        world: World,
        budget_mb: float,
        start: int = 0,
    ) -> FrameStream:
        """Endless shuffled frames, ``batch_size`` over all ranks, from global sample ``start`` on."""
        return FrameStream(
            self.store,
            ranges,
            self.stage.fine,
            self.stage.coarse,
            batch_size,
            self.seed,
            world.rank,
            world.size,
            budget_mb,
            start=start,
            clusters=self.clusters,
        )

    def sample(
        self, ranges: list[FrameRange], batch_size: int, most: int, budget_mb: float
    ) -> StageInputs:
        """The same shuffled frames on every rank: up to ``most`` of one system, a batch of several."""
        names = {part.system for part in ranges}
        size = batch_size
        if len(names) == 1:
            ladder = self.store.system(names.pop()).ladder
            particles = ladder.n_particles(self.stage.fine) + ladder.n_particles(self.stage.coarse)
            fitting = int(1e6 * budget_mb / (2 * frame_bytes(particles)))
            size = max(1, min(most, sum(part.stop - part.start for part in ranges), fitting))
        alone = World(0, 1, 0, "one rank")
        return self.inputs(next(iter(self.stream(ranges, size, alone, budget_mb))), "sample")

    def inputs(self, batch: StreamBatch, key: str) -> StageInputs:
        """Inputs of a stream batch: frames of one molecule, or one frame of each of several.

        ``key`` keeps the noise of, say, two steps apart.
        """
        systems = [self._describe(name) for name in batch.systems]
        fine, coarse = batch.fine, batch.coarse
        if len({self.store.system(name).ladder.digest for name in batch.systems}) == 1:
            system, one = self._alone(batch.systems[0]), systems[0]
            fine, coarse = fine.reshape(-1, one.n_fine, 3), coarse.reshape(-1, one.n_coarse, 3)
            noise = self._noise(key, batch.frames, one.n_coarse)
        else:
            system = self._together(tuple(batch.systems))
            parts = [
                self._noise(key, [frame], one.n_coarse)
                for frame, one in zip(batch.frames, systems, strict=True)
            ]
            noise = np.concatenate(parts, axis=1)
        fine, coarse = centred_together(fine, coarse, system.fine_sizes, system.coarse_sizes)
        return StageInputs(
            self._on_device(fine),
            self._on_device(coarse),
            system,
            self._on_device(noise),
            len(batch.frames),
            batch.position,
        )

    def fixed(
        self, ranges: list[FrameRange], n_frames: int, batch_size: int, key: str
    ) -> Iterator[Any]:
        """Up to ``n_frames`` evenly spaced frames of ``ranges``, in batches of one system each."""
        counts = [part.stop - part.start for part in ranges]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if counts else 0
        chosen = np.unique(np.linspace(0, total - 1, min(n_frames, total)).round().astype(int))
        for part, end, count in zip(ranges, ends, counts, strict=True):
            here = chosen[(chosen >= end - count) & (chosen < end)] - (end - count) + part.start
            for first in range(0, len(here), batch_size):
                yield self._read(part.system, here[first : first + batch_size], key)

    def _read(self, name: str, frames: np.ndarray, key: str) -> StageInputs:
        stored = self.store.system(name)
        fine, coarse = (
            stored.read_at(resolution, frames)
            for resolution in (self.stage.fine, self.stage.coarse)
        )
        centre = centre_of(coarse)
        noise = self._noise(key, frames + stored.first_frame, self._describe(name).n_coarse)
        return StageInputs(
            self._on_device(about(fine, centre)),
            self._on_device(about(coarse, centre)),
            self._alone(name),
            self._on_device(noise),
            len(frames),
        )

    def _describe(self, name: str) -> System:
        if name not in self._described:
            self._described[name] = self.stage.describe(self.store.system(name).ladder)
        return self._described[name]

    def _alone(self, name: str) -> System:
        """A batch of one system, on the device."""
        if name not in self._single:
            self._single[name] = collate([self._describe(name)]).to(self.device)
        return self._single[name]

    def _together(self, names: tuple[str, ...]) -> System:
        """A batch of several systems, on the device; the last ones stay."""
        if names not in self._joined:
            while len(self._joined) >= KEPT_BATCHES:
                del self._joined[next(iter(self._joined))]
            self._joined[names] = collate([self._alone(name) for name in names])
        return self._joined[names]

    def _noise(self, key: str, frames: Iterable[int], n_beads: int) -> np.ndarray:
        stream = f"{self.stage.name}/{key}"
        return frame_noise(self.seed, stream, list(frames), 0, n_beads, self.stage.elbo_noise)

    def _on_device(self, array: np.ndarray) -> Tensor:
        """Copied beside the computation where the device is a GPU, which only page-locked memory allows."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)
