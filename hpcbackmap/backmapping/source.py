"""Where coarse frames come from: a frame store, or the files that a user brings.

A source has systems; of a system, the chosen frames are read as the chain takes them, and those that cannot be
backmapped are named with what was measured. A frame store is a source as it is; `FileSource` is the other kind.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from hpcbackmap.backmapping.backbone_rules import impossible_backbone
from hpcbackmap.backmapping.others import Others
from hpcbackmap.backmapping.reading import WholeSites, require_unit
from hpcbackmap.backmapping.trace_rules import (
    SiteRules,
    astray,
    cis_in_words,
    closed_rules,
    find_unusable,
    handedness_in_words,
    measure_rules,
    repaired,
)
from hpcbackmap.protein.residues import TRANS
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.representations.detect import detect, read_as
from hpcbackmap.resolution.representations.reading import Reading
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.trajectories.formats import may_be_crystal
from hpcbackmap.trajectories.frames import FrameReader, Frames
from hpcbackmap.trajectories.particles import Particles

if TYPE_CHECKING:
    from hpcbackmap.stages.given import Given

__all__ = [
    "Coarse",
    "FileSource",
    "FileSystem",
    "Source",
    "SourceSystem",
    "file_source",
    "filled",
    "keeps_cells",
    "read_coarse",
]

SYSTEM = "trajectory"
"""Name of the one system of a user's files."""
FEWEST = 3
"""Residues without which a molecule has no orientation."""
SAMPLED = 32
"""Frames, evenly spaced, on which breaks and the scatter of bonds are measured."""


class SourceSystem(Protocol):
    """One molecule. first_frame: number of its frame 0 among all frames of the source."""

    @property
    def name(self) -> str: ...
    @property
    def n_frames(self) -> int: ...
    @property
    def first_frame(self) -> int: ...
    @property
    def ladder(self) -> Ladder: ...

    def n_particles(self, resolution: str) -> int: ...

    def read_at(self, resolution: str, frames: Sequence[int]) -> np.ndarray: ...


class Source(Protocol):
    """path: how messages call it. digest: of all that decides what is read."""

    @property
    def path(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def resolutions(self) -> tuple[str, ...]: ...
    @property
    def systems(self) -> tuple[str, ...]: ...

    def system(self, name: str) -> SourceSystem: ...


class Coarse(NamedTuple):
    """Coarse frames as the chain takes them.

    positions: float32 [F, B, 3], nm, all numbers. unusable: why frames cannot be backmapped, by place; what
    stands there is another frame, computed and thrown away. moved: root mean square displacement (nm) by which
    a frame was closed, [F]. given: what the frames hold beside, to be kept or reproduced. cells: their periodic
    boxes, [F, 3, 3] (nm), zeros where a frame has none; None where the source keeps none.
    """

    positions: np.ndarray
    unusable: dict[int, str]
    moved: np.ndarray
    given: "Given | None" = None
    cells: np.ndarray | None = None


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
    moved = np.zeros(len(positions), np.float32)
    cells, given = _stored_cells(system, frames), None
    if resolution == "ca" and cells is not None:
        from hpcbackmap.stages.given import boxed

        given = boxed(None, cells)
    return Coarse(filled(positions, unusable), unusable, moved, given, cells)


def keeps_cells(system: SourceSystem) -> bool:
    """Whether frames of a source may have a periodic box."""
    if isinstance(system, FileSystem):
        return system.periodic
    from hpcbackmap.store.layout import CELL
    from hpcbackmap.store.system import StoredSystem

    return isinstance(system, StoredSystem) and set(CELL) <= set(system.observables)


def _stored_cells(system: SourceSystem, frames: Sequence[int]) -> np.ndarray | None:
    """Boxes of frames of a store that keeps them, else None."""
    # Here, not above: runs of files do without stores, and without Zarr, which takes long to load.
    from hpcbackmap.store.system import StoredSystem

    return system.read_cells_at(frames) if isinstance(system, StoredSystem) else None


@dataclass(frozen=True, eq=False)
class FileSystem:
    """Frames of files as C-alpha traces.

    reader: the frames. chosen: particles of them that are read, int64. reading: what these are. rules: of
    their sites. on_bad_frame: ``skip``, ``repair`` or ``stop``. gather: chains are brought together. others:
    what is passed through beside the protein. periodic: some frame that was looked at has a box.
    """

    reader: FrameReader
    chosen: np.ndarray
    reading: Reading
    ladder: Ladder
    rules: SiteRules
    on_bad_frame: str = "skip"
    gather: bool = True
    others: Others | None = None
    periodic: bool = False
    name: str = SYSTEM
    first_frame: int = 0

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
        from hpcbackmap.stages.calpha.trace import calpha_trace
        from hpcbackmap.stages.given import given_of

        read, topology = self.reader.read_at(frames), self.ladder.topology
        particles = self._whole(read.positions[:, self.chosen], read.cells)
        sites = particles[:, self._whole.anchor]
        strays = astray(self.reading, particles, sites) | impossible_backbone(
            self.reading, particles
        )
        unusable = strays | find_unusable(topology, sites, self.rules)
        if unusable and self.on_bad_frame == "stop":
            place, reason = min(unusable.items())
            raise InputError(
                f"{self.reader.label(frames[place])}: {reason}; leave such frames out with --on-bad-frame "
                "skip, or close their traces with --on-bad-frame repair"
            )
        usable = filled(particles, unusable)
        trace = calpha_trace(self.reading, usable, self.rules.scatter, self.rules.cis)
        positions, moved = trace.calpha.copy(), np.sqrt(np.square(trace.moved).mean(-1))
        finite = [p for p in unusable if p not in strays and np.isfinite(sites[p]).all()]
        if finite and self.on_bad_frame == "repair" and self._whole.site == "ca":
            self._repair(sites, finite, positions, moved, unusable)
        for place, reason in find_unusable(topology, positions, None).items():
            unusable.setdefault(place, f"as C-alpha atoms: {reason}")
        given = given_of(self.reading, filled(particles, unusable), read.cells)
        moved[list(unusable)] = 0.0
        positions = filled(positions, unusable)
        return Coarse(positions, unusable, moved.astype(np.float32), given, read.cells)

    def _repair(
        self,
        sites: np.ndarray,
        finite: list[int],
        positions: np.ndarray,
        moved: np.ndarray,
        unusable: dict[int, str],
    ) -> None:
        """Close broken traces; those that can be closed are usable."""
        topology = self.ladder.topology
        closed = repaired(topology, sites[finite])
        left = find_unusable(topology, closed, closed_rules(self.rules))
        for number, place in enumerate(finite):
            if number in left:
                unusable[place] += f"; not to be repaired: when closed, {left[number]}"
            else:
                shift = closed[number].astype(np.float64) - sites[place]
                positions[place] = closed[number]
                moved[place] = np.sqrt(np.square(shift).sum(-1).mean())
                del unusable[place]

    @cached_property
    def _whole(self) -> WholeSites:
        return WholeSites(self.reading, self.gather)


@dataclass(frozen=True, eq=False)
class FileSource:
    """The files of a user as a source with one system. path: how messages call them. options: what else
    decides what is read, JSON-ready.
    """

    path: str
    only: FileSystem
    options: dict[str, Any]
    resolutions: tuple[str, ...] = ("ca",)
    systems: tuple[str, ...] = (SYSTEM,)

    def system(self, name: str) -> FileSystem:
        return self.only

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What decides what is read, for a plan to remember."""
        return {
            "files": self.only.reader.facts,
            **self.options,
            "representation": self.only.reading.representation,
            "on_bad_frame": self.only.on_bad_frame,
            "scatter": self.only.rules.scatter,
            "ladder": self.only.ladder.digest[:16],
        }

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()


def file_source(
    reader: FrameReader,
    particles: Particles,
    path: str,
    representation: str,
    on_bad_frame: str,
    options: dict[str, Any],
    chosen: np.ndarray,
) -> FileSource:
    """A source of the ``chosen`` ones among ``particles``, taken as ``representation``; ``auto``: as what they
    are.

    What kind they are and the bounds of bonds come from frames of the whole input, evenly spaced.
    Raises InputError for a unit of length that is another one, ConfigError where two readings are as likely.
    """
    from hpcbackmap.stages.calpha.trace import lasting_cis

    subset = particles.subset(chosen)
    require_unit(path, subset)
    number = min(SAMPLED, reader.n_frames)
    sampled = np.unique(np.linspace(0, reader.n_frames - 1, number).astype(int))
    read = reader.read_at(sampled.tolist())
    frames = read.positions[:, chosen]
    good = np.isfinite(frames).all(axis=(1, 2))
    if not good.any():
        raise InputError(f"{path}: {_without_numbers(subset, frames)}")
    shown = frames[good]
    if subset.positions is not None:  # the first frame may be the bad one
        subset = replace(subset, positions=_typical(shown, subset.steps, subset))
    take = detect if representation == "auto" else partial(read_as, representation)
    try:
        reading = take(subset, shown)
    except (ConfigError, InputError) as error:
        raise type(error)(str(error) if path in str(error) else f"{path}: {error}") from None
    if reading.topology.n_residues < FEWEST:
        raise InputError(
            f"{path}: {reading.topology.n_residues} residue(s) only; {FEWEST} at least are needed, fewer have "
            "no orientation"
        )
    gather = not may_be_crystal(path)
    whole = WholeSites(reading, gather)
    cells = None if read.cells is None else read.cells[good]
    shown = whole(frames[good], cells)
    sites = shown[:, whole.anchor]
    rules = measure_rules(reading.topology, whole.site, sites)
    reading.words.extend(handedness_in_words(reading.topology, sites))
    if (cis := lasting_cis(reading, shown)) is not None:
        rules = replace(rules, cis=cis)
        reading.words.extend(cis_in_words(reading.topology, cis))
    ladder = build_ladder(reading.topology, ["fg", "ca"])
    system = FileSystem(
        reader,
        chosen,
        reading,
        ladder,
        rules,
        on_bad_frame,
        gather,
        periodic=read.cells is not None,
    )
    return FileSource(path, system, options)


def _without_numbers(particles: Particles, frames: np.ndarray) -> str:
    """What is wrong with frames [F, P, 3] none of which is usable: the particle that is a number in fewest."""
    number = np.isfinite(frames).all(axis=2).sum(axis=0)
    worst = int(number.argmin())
    return (
        f"no frame of {len(frames)} looked at has numbers for every particle; {particles.names[worst]} of "
        f"{particles.label(int(particles.residue[worst]))} has them in {number[worst]}; --select leaves it out"
    )


def _typical(frames: np.ndarray, steps: np.ndarray, particles: Particles) -> np.ndarray:
    """Of sampled frames [F, P, 3] the one whose residues follow each other most as ``steps`` [R] say."""
    first = np.array([rows[0] for rows in particles.members()])
    lengths = np.linalg.norm(np.diff(frames[:, first], axis=1), axis=-1)
    off = np.nan_to_num(np.abs(lengths - steps[1:]))
    found: np.ndarray = frames[int(off.max(axis=1, initial=0.0).argmin())]
    return found


def filled(positions: np.ndarray, unusable: dict[int, str], spacing: float = TRANS) -> np.ndarray:
    """Unusable frames of [F, N, 3] replaced by a usable one, or by points ``spacing`` (nm) apart: what is made
    of them is thrown away, and at one place, as neighbours of each other, they would take minutes.
    """
    if not unusable:
        return positions
    good = np.setdiff1d(np.arange(len(positions)), list(unusable))
    filled = positions.copy()
    filled[list(unusable)] = (
        positions[good[0]] if len(good) else _helix(positions.shape[1], spacing)
    )
    return filled


def _helix(count: int, spacing: float) -> np.ndarray:
    """Points [N, 3] of which neighbours are ``spacing`` apart."""
    along = np.arange(count)
    turn = 1.75 * along
    return spacing * np.stack([0.6 * np.cos(turn), 0.6 * np.sin(turn), 0.39 * along], axis=1)
