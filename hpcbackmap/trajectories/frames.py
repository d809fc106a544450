"""Frames of users' trajectories by number: several files of one topology as one, or arrays in memory."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import mdtraj
import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.particles import Particles
from hpcbackmap.trajectories.reader import describe_file, read_frames
from hpcbackmap.trajectories.units import unit_scale

__all__ = [
    "FilesOfFrames",
    "FrameReader",
    "Frames",
    "FramesInMemory",
    "file_identity",
    "open_files",
]

WHOLE_HASH = 64 << 20
"""Bytes up to which a file is known by the hash of all of it; larger ones by samples, size and date."""
SAMPLE, SAMPLES = 1 << 20, 16
SKIPPED = 16
"""Frames that are read and thrown away rather than that a file is opened anew."""


class Frames(NamedTuple):
    """positions: float32 [n, particles, 3], nm. times: [n], ps. cells: [n, 3, 3], nm (rows are vectors), or
    None.
    """

    positions: np.ndarray
    times: np.ndarray
    cells: np.ndarray | None


class FrameReader(Protocol):
    """n_frames; label(frame): how messages name a frame; facts: what the frames are, JSON-ready."""

    @property
    def n_frames(self) -> int: ...

    def read_at(self, frames: Sequence[int]) -> Frames: ...

    def label(self, frame: int) -> str: ...

    @property
    def facts(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class FilesOfFrames:
    """paths: in order; counts: frames of each. n_atoms: particles of a frame. topology_file: names them.
    unit: of length, where it is not that of the format.
    """

    paths: tuple[str, ...]
    counts: tuple[int, ...]
    n_atoms: int
    topology_file: str
    unit: str | None = None

    @property
    def n_frames(self) -> int:
        return sum(self.counts)

    @cached_property
    def facts(self) -> dict[str, Any]:
        found = {Path(path).name: file_identity(path) for path in self.paths}
        if self.topology_file not in self.paths:
            found[f"topology {Path(self.topology_file).name}"] = file_identity(self.topology_file)
        return found

    def label(self, frame: int) -> str:
        number, within = self._place(frame)
        if len(self.paths) == 1:
            return f"{self.paths[0]}: frame {frame}"
        return f"{self.paths[number]}: frame {frame} (its own {within})"

    def read_at(self, frames: Sequence[int]) -> Frames:
        """Frames with these ascending numbers. Raises InputError if a file cannot be read."""
        pieces = [
            piece
            for number, wanted in self._by_file(frames)
            for run in _runs(wanted)
            for piece in self._run(number, run)
        ]
        cells = [piece.cells for piece in pieces if piece.cells is not None]
        return Frames(
            np.concatenate([piece.positions for piece in pieces]),
            np.concatenate([piece.times for piece in pieces]),
            np.concatenate(cells) if len(cells) == len(pieces) else None,
        )

    def _run(self, number: int, wanted: np.ndarray) -> Iterator[Frames]:
        """Chosen frames ``wanted`` of one file, near each other."""
        at, last = int(wanted[0]), int(wanted[-1]) + 1
        scale = np.float32(unit_scale(self.paths[number], self.unit))
        for positions, times, cells in read_frames(self.paths[number], self, at, last):
            here = wanted[(wanted >= at) & (wanted < at + len(positions))] - at
            at += len(positions)
            if len(here):
                yield Frames(
                    positions[here] * scale,
                    np.asarray(times, dtype=np.float64)[here],
                    None if cells is None else cells[here] * scale,
                )

    def _by_file(self, frames: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        wanted, before = np.asarray(frames), 0
        for number, count in enumerate(self.counts):
            here = wanted[(wanted >= before) & (wanted < before + count)] - before
            before += count
            if len(here):
                yield number, here

    def _place(self, frame: int) -> tuple[int, int]:
        for number, count in enumerate(self.counts):
            if frame < count:
                return number, frame
            frame -= count
        raise IndexError(frame)


@dataclass(frozen=True, eq=False)
class FramesInMemory:
    """A trajectory that a program has at hand."""

    trajectory: mdtraj.Trajectory

    @property
    def n_frames(self) -> int:
        found: int = self.trajectory.n_frames
        return found

    @cached_property
    def facts(self) -> dict[str, Any]:
        digest = hashlib.sha256(np.ascontiguousarray(self.trajectory.xyz).data).hexdigest()
        return {"trajectory": f"{self.n_frames} frames, sha256 {digest[:16]}"}

    def label(self, frame: int) -> str:
        return f"trajectory: frame {frame}"

    def read_at(self, frames: Sequence[int]) -> Frames:
        chosen = np.asarray(frames)
        cells = self.trajectory.unitcell_vectors
        return Frames(
            self.trajectory.xyz[chosen],
            np.asarray(self.trajectory.time, dtype=np.float64)[chosen],
            None if cells is None else cells[chosen],
        )


def open_files(
    paths: Sequence[str], particles: Particles, unit: str | None = None
) -> FilesOfFrames:
    """Files of these particles. Raises InputError that names what is wrong."""
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{path}: is given twice")
    for path in paths:
        particles.require_same(path)
    counts = [describe_file(path, particles)[0] for path in paths]
    return FilesOfFrames(tuple(paths), tuple(counts), particles.n_atoms, particles.source, unit)


def file_identity(path: str) -> str:
    """Size and hash of a file; of a large one the hash of samples of it, and its date."""
    size, digest = os.stat(path).st_size, hashlib.sha256()
    with open(path, "rb") as file:
        if size <= WHOLE_HASH:
            digest = hashlib.file_digest(file, "sha256")
            return f"{size} bytes, sha256 {digest.hexdigest()[:16]}"
        for k in range(SAMPLES):
            file.seek(k * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return f"{size} bytes of {os.stat(path).st_mtime_ns}, samples {digest.hexdigest()[:16]}"


def _runs(wanted: np.ndarray) -> list[np.ndarray]:
    """Ascending numbers, cut where so many are missing that it is better to look anew."""
    return np.split(wanted, np.flatnonzero(np.diff(wanted) > SKIPPED) + 1)
