"""Where coarse frames come from: a frame store, or the files that a user brings.

A source has systems; of a system, the chosen frames are read as the chain takes them, and those that cannot be
backmapped are named with what was measured. A frame store is a source as it is; `FileSource` is the other kind.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from hpcbackmap.backmapping.reading import Reading, require_unit
from hpcbackmap.backmapping.trace_rules import (
    TraceRules,
    bonded_residues,
    closed,
    find_unusable,
    measure_trace,
    repaired,
)
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.trajectories.checks import bonds_of
from hpcbackmap.trajectories.frames import FrameReader, Frames

__all__ = [
    "Coarse",
    "FileSource",
    "FileSystem",
    "Source",
    "SourceSystem",
    "file_source",
    "read_coarse",
]

SYSTEM = "trajectory"
"""Name of the one system of a user's files."""
SAMPLED = 32
"""Frames, evenly spaced, on which breaks and the scatter of bonds are measured."""


class SourceSystem(Protocol):
    """One molecule. first_frame: number of its frame 0 among all frames of the source."""

    name: str
    n_frames: int
    first_frame: int

    @property
    def ladder(self) -> Ladder: ...

    def n_particles(self, resolution: str) -> int: ...

    def read_at(self, resolution: str, frames: Sequence[int]) -> np.ndarray: ...


class Source(Protocol):
    """path: how messages call it. digest: of all that decides what is read."""

    path: str
    digest: str
    resolutions: tuple[str, ...]
    systems: tuple[str, ...]

    def system(self, name: str) -> SourceSystem: ...


class Coarse(NamedTuple):
    """Coarse frames as the chain takes them.

    positions: float32 [F, B, 3], nm, all numbers. unusable: why frames cannot be backmapped, by place; what
    stands there is another frame, computed and thrown away. moved: root mean square displacement (nm) by which
    a frame was closed, [F].
    """

    positions: np.ndarray
    unusable: dict[int, str]
    moved: np.ndarray


def read_coarse(system: SourceSystem, resolution: str, frames: Sequence[int]) -> Coarse:
    """Frames with these ascending numbers of a store or of files."""
    if isinstance(system, FileSystem):
        return system.coarse(frames)
    positions = system.read_at(resolution, frames)
    if resolution == "ca":
        unusable = find_unusable(system.ladder.topology, positions, None)
    else:
        bad = ~np.isfinite(positions).all(axis=(1, 2))
        unusable = dict.fromkeys(np.flatnonzero(bad).tolist(), "input is not finite")
    return Coarse(_filled(positions, unusable), unusable, np.zeros(len(positions), np.float32))


@dataclass(frozen=True, eq=False)
class FileSystem:
    """Frames of files as C-alpha traces.

    reader: the frames. reading: which of their particles are what. rules: of their traces. on_bad_frame:
    ``skip``, ``repair`` or ``stop``.
    """

    reader: FrameReader
    reading: Reading
    ladder: Ladder
    rules: TraceRules
    on_bad_frame: str = "skip"
    name: str = SYSTEM
    first_frame: int = 0
    start: str = "ca"

    @property
    def n_frames(self) -> int:
        return self.reader.n_frames

    def n_particles(self, resolution: str) -> int:
        return self.ladder.n_particles(resolution)

    def read_at(self, resolution: str, frames: Sequence[int]) -> np.ndarray:
        """Frames that can be computed: what is unusable is replaced."""
        return self.coarse(frames).positions

    def frames(self, frames: Sequence[int]) -> Frames:
        """As the files have them."""
        return self.reader.read_at(frames)

    def coarse(self, frames: Sequence[int]) -> Coarse:
        """Raises InputError for a bad frame where these are to stop the run."""
        read = self.reader.read_at(frames)
        positions = self._traces(read)
        topology, rules = self.ladder.topology, self.rules
        unusable = find_unusable(topology, positions, rules)
        moved = np.zeros(len(positions), dtype=np.float32)
        if unusable and self.on_bad_frame == "stop":
            place, reason = min(unusable.items())
            raise InputError(
                f"{self.reader.label(frames[place])}: {reason}; leave such frames out with --on-bad-frame "
                "skip, or close their traces with --on-bad-frame repair"
            )
        usable = [place for place in range(len(positions)) if place not in unusable]
        if rules.close and usable:
            closing = closed(topology, positions[usable], rules)
            positions[usable], moved[usable] = closing
        finite = [place for place in unusable if np.isfinite(positions[place]).all()]
        if finite and self.on_bad_frame == "repair":
            closing = repaired(topology, positions[finite], rules)
            left = find_unusable(topology, closing.positions, rules)
            for number, place in enumerate(finite):
                if number not in left:
                    positions[place], moved[place] = (
                        closing.positions[number],
                        closing.moved[number],
                    )
                    del unusable[place]
        return Coarse(_filled(positions, unusable), unusable, moved)

    def _traces(self, read: Frames) -> np.ndarray:
        """C-alpha positions [F, R, 3], float32, whole where a cell is known."""
        traces = self.reading.to_calpha(read.positions)
        if read.cells is not None:
            traces, _ = self._mender.mend(traces, read.cells)
        return np.array(traces, dtype=np.float32)

    @cached_property
    def _mender(self):
        from hpcbackmap.trajectories.periodic import Mender

        return Mender(
            self.ladder.topology.n_residues,
            bonds_of(self.ladder.topology, coarse=True),
            gather=True,
        )


@dataclass(frozen=True, eq=False)
class FileSource:
    """The files of a user as a source with one system. path: how messages call them. options: what else
    decides what is read, JSON-ready.
    """

    path: str
    only: FileSystem
    options: dict
    resolutions: tuple[str, ...] = ("ca",)
    systems: tuple[str, ...] = (SYSTEM,)

    def system(self, name: str) -> FileSystem:
        return self.only

    @cached_property
    def facts(self) -> dict:
        """What decides what is read, for a plan to remember."""
        return {
            "files": self.only.reader.facts,
            **self.options,
            "representation": self.only.reading.representation,
            "on_bad_frame": self.only.on_bad_frame,
            "closed": self.only.rules.close,
            "molecule": self.only.ladder.digest[:16],
        }

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def file_source(
    reader: FrameReader, reading: Reading, path: str, on_bad_frame: str, options: dict
) -> FileSource:
    """A source of the frames of ``reader``, read as ``reading`` says.

    Breaks of chains and the bounds of bonds come from frames of the whole input, evenly spaced.
    Raises InputError for an input whose unit of length is another one.
    """
    number = min(SAMPLED, reader.n_frames)
    chosen = np.unique(np.linspace(0, reader.n_frames - 1, number).astype(int))
    read = reader.read_at(chosen.tolist())
    samples = _whole_samples(reading, read)
    require_unit(path, reading.topology, samples)
    bonded = bonded_residues(np.array(reading.topology.chain_index), samples)
    topology = replace(reading.topology, bonded=tuple(bonded.tolist()))
    rules = measure_trace(topology, samples)
    ladder = build_ladder(topology, ["fg", "ca"])
    return FileSource(path, FileSystem(reader, reading, ladder, rules, on_bad_frame), options)


def _whole_samples(reading: Reading, read: Frames) -> np.ndarray:
    """Traces of sampled frames that are numbers [F, R, 3], each residue beside the one before it."""
    from hpcbackmap.trajectories.periodic import whole_along_order

    traces = reading.to_calpha(read.positions)
    good = np.flatnonzero(np.isfinite(traces).all(axis=(1, 2)))
    chains = np.array(reading.topology.chain_index)
    whole = [
        traces[k] if read.cells is None else whole_along_order(traces[k], read.cells[k], chains)
        for k in good
    ]
    return np.array(whole, dtype=np.float64).reshape(-1, len(chains), 3)


def _filled(positions: np.ndarray, unusable: dict[int, str]) -> np.ndarray:
    """Unusable frames replaced by a usable one."""
    if not unusable:
        return positions
    good = np.setdiff1d(np.arange(len(positions)), list(unusable))
    filled = positions.copy()
    filled[list(unusable)] = positions[good[0]] if len(good) else 0.0
    return filled
