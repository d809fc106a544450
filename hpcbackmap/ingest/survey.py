"""Looking at the input of one system before anything is written: its files, atoms and frames."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import mdtraj
import numpy as np

from hpcbackmap.config.campaign import SystemConfig
from hpcbackmap.ingest.beads import bead_table, match_beads, resolution_of
from hpcbackmap.ingest.selection import select_particles
from hpcbackmap.protein.residues import TRANS
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import sha256_of
from hpcbackmap.trajectories.bead_links import bead_links, typical_steps
from hpcbackmap.trajectories.checks import (
    CALPHA_RANGE,
    Links,
    bonds_of,
    require_links,
    require_numbers,
)
from hpcbackmap.trajectories.formats import may_be_crystal
from hpcbackmap.trajectories.particles import Particles
from hpcbackmap.trajectories.periodic import Mender, whole_along_order
from hpcbackmap.trajectories.read_particles import load_topology, read_particles
from hpcbackmap.trajectories.reader import describe_file, holds_topology, read_frames
from hpcbackmap.trajectories.units import length_unit, wrong_unit

__all__ = ["Piece", "SourceFile", "SystemSurvey", "planned_beads", "survey_system"]

log = logging.getLogger(__name__)

SHOWN_BEADS = 12
"""Lines of the bead table in the log."""


@dataclass(frozen=True)
class SourceFile:
    """One trajectory file. start, stop: the frames of the system that it gives, after striding."""

    path: str
    name: str
    sha256: str
    n_frames: int
    start: int
    stop: int


class Piece(NamedTuple):
    """n frames of a system: positions float32 [n, particles, 3] (nm), whole where a cell is known; steps:
    frame numbers in the source file [n]; times [n] (ps); cells [n, 3, 3] (nm) or None; mended: frames that the
    periodic box had cut, bool [n].
    """

    positions: np.ndarray
    steps: np.ndarray
    times: np.ndarray
    cells: np.ndarray | None
    mended: np.ndarray


@dataclass(frozen=True)
class SystemSurvey:
    """What a system will hold. index: file atom of each stored particle, int64.

    topology_file: where file atoms are named. dropped: file atoms left out of a frame, by kind.
    resolution: what the files hold; of ``ca``, ``index`` has one entry per residue.
    ladder: of beads, down from that resolution at least; else None. periodic: its first frame has a box.
    """

    name: str
    topology: Topology
    topology_file: str
    topology_sha256: str
    index: np.ndarray
    stride: int
    files: tuple[SourceFile, ...]
    dropped: dict[str, int]
    resolution: str = "fg"
    ladder: Ladder | None = None
    periodic: bool = False

    @property
    def n_frames(self) -> int:
        return self.files[-1].stop

    @property
    def sources(self) -> list[tuple[str, int, int]]:
        return [(file.name, file.start, file.stop) for file in self.files]

    @cached_property
    def links(self) -> Links:
        if self.ladder is not None:
            return bead_links(self.ladder, self.resolution)
        return bonds_of(self.topology, coarse=self.resolution == "ca")

    @property
    def _chains(self) -> np.ndarray | None:
        """Of each particle; None for beads."""
        if self.ladder is not None:
            return None
        chains = np.array(self.topology.chain_index)
        return chains if self.resolution == "ca" else chains[self.topology.atom_residue]

    def read(self, start: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """Positions, steps, times and cells of the `read_pieces` of frames ``start`` to ``stop``."""
        for piece in self.read_pieces(start, stop):
            yield piece[:4]

    def read_pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """Frames ``start`` to ``stop`` in order.

        Raises InputError that names file and frame for coordinates that are not numbers and for bonds that
        cannot be, also in another image of the periodic box.
        """
        file_topology = load_topology(self.topology_file)
        for file in self.files:
            if start >= file.stop or stop <= file.start:
                continue
            first = (max(start, file.start) - file.start) * self.stride
            last = (min(stop, file.stop) - file.start - 1) * self.stride + 1
            gather = not may_be_crystal(file.path)
            mender = Mender(len(self.index), self.links, gather, self._chains)
            number = first
            frames = read_frames(file.path, file_topology, first, last, atoms=self.index)
            for piece, times, cells in frames:
                skip = -(number - first) % self.stride
                positions = piece[skip :: self.stride]
                steps = np.arange(number, number + len(piece))[skip :: self.stride]
                number += len(piece)
                if len(positions) == 0:
                    continue
                require_numbers(positions, steps, file.path)
                cells = None if cells is None else cells[skip :: self.stride]
                for place, why in mender.untold(positions, cells).items():
                    raise InputError(f"{file.path}: frame {steps[place]}: {why}")
                positions, mended = mender.mend(positions, cells)
                require_links(self.links, positions, steps, file.path)
                times = times[skip :: self.stride].astype(np.float64)
                yield Piece(positions, steps, times, cells, mended)


def survey_system(config: SystemConfig, ladder: Sequence[str] = ()) -> SystemSurvey:
    """Find the files of a system and hold them against its topology, or, of beads, against ``ladder`` (the
    campaign's specifications).

    Raises InputError that names the file: missing, truncated, of other atoms than the topology, not in nm,
    not numbers; ConfigError for a selection that mdtraj does not understand or that is empty.
    """
    paths, topology_file, particles = _open_system(config)
    file_topology = particles.to_mdtraj()
    files, start, firsts = [], 0, []
    for path, name in zip(paths, _source_names(paths), strict=True):
        particles.require_same(path)
        n_frames, frame = describe_file(path, file_topology)
        firsts.append(frame)
        stop = start - (-n_frames // config.stride)
        files.append(SourceFile(path, name, sha256_of(path), n_frames, start, stop))
        start = stop
    first, cells = firsts[0], next(read_frames(paths[0], file_topology, 0, 1))[2]
    built: Ladder | None = None
    if config.resolution:
        built, index = match_beads(config, list(ladder), file_topology, topology_file)
        topology, held, dropped = built.topology, config.resolution, {}
        if len(index) < file_topology.n_atoms:
            dropped["not selected"] = file_topology.n_atoms - len(index)
        require_numbers(first[None, index], np.zeros(1, int), paths[0])
    else:
        topology, index, dropped = _atoms(config, particles, file_topology, paths[0], first, cells)
        held = "fg" if len(index) == topology.n_atoms else "ca"
        for word in particles.words + particles.subset(index).modified() + _words(dropped):
            log.warning("system %s: %s", config.name, word)
    survey = SystemSurvey(
        name=config.name,
        topology=topology,
        topology_file=topology_file,
        topology_sha256=sha256_of(topology_file),
        index=index,
        stride=config.stride,
        files=tuple(files),
        dropped=dropped,
        resolution=held,
        ladder=built,
        periodic=cells is not None and bool(cells.any()),
    )
    _require_nm(survey, first, cells)
    log.info(
        "system %s: %d residues, %d chain(s), %d frames from %d file(s); left out of every frame: %s",
        survey.name, topology.n_residues, len(topology.chain_ids), survey.n_frames, len(files),
        ", ".join(f"{count} {kind}" for kind, count in dropped.items()) or "nothing",
    )  # fmt: skip
    if built:
        _show_beads(survey, built, file_topology)
    return survey


def planned_beads(config: SystemConfig, ladder: list[str]) -> dict[str, str]:
    """For files of beads: of each bead, which particle of the file it is, and its residues.

    Raises what `survey_system` raises about them.
    """
    _, topology_file, particles = _open_system(config)
    file_topology = particles.to_mdtraj()
    built, index = match_beads(config, ladder, file_topology, topology_file)
    return bead_table(built, resolution_of(config), [file_topology.atom(int(i)) for i in index])


def _open_system(config: SystemConfig) -> tuple[list[str], str, Particles]:
    """Trajectory files, and the file that names their particles with what it says."""
    paths = _find_files(config)
    topology_file = config.topology or paths[0]
    if not config.topology and not holds_topology(topology_file):
        raise InputError(
            f"{topology_file}: this format names no atoms; give system {config.name} a `topology` file"
        )
    return paths, topology_file, read_particles(paths[0], topology_file)


def _atoms(
    config: SystemConfig,
    particles: Particles,
    file_topology: mdtraj.Topology,
    path: str,
    first: np.ndarray,
    cells: np.ndarray | None,
) -> tuple[Topology, np.ndarray, dict[str, Any]]:
    """Topology, file indices and dropped atoms of files with atoms; first [atoms, 3] and cells [1, 3, 3] of
    their first frame.
    """
    selected = select_particles(file_topology, config)
    subset, here = particles.subset(selected), first[selected]
    if set(subset.names) == {"BB"}:
        raise InputError(
            f"{particles.source}: BB beads are centres of backbones, no atoms; use a ladder of fg, bb, … and "
            f"`resolution: bb` for system {config.name}"
        )
    require_numbers(first[None, selected], np.zeros(1, int), path)
    found = subset.topology(here)
    if cells is not None and (_broken_chain(found[0]) or not may_be_crystal(path)):
        chains = np.array([subset.residues[row].chain for row in subset.residue])
        joined = subset.topology(whole_along_order(here, cells[0], chains))
        found = max(found, joined, key=lambda each: sum(each[0].bonded) + len(each[0].disulphides))
    topology, index, dropped = found
    left = np.setdiff1d(np.arange(particles.n_atoms), selected)
    kinds = particles.kinds(left)
    for kind, count in kinds.items():
        dropped[kind] = dropped.get(kind, 0) + count
    if len(left) > sum(kinds.values()):
        dropped["not selected"] = len(left) - sum(kinds.values())
    return topology, selected[index], dropped


def _words(dropped: dict[str, int]) -> list[str]:
    """Of what is left out, that which a user may miss: no hydrogens, no water."""
    missed = {
        kind: count for kind, count in dropped.items() if not kind.startswith(("hydrogen", "water"))
    }
    if not missed:
        return []
    told = ", ".join(f"{count} of {kind}" for kind, count in missed.items())
    return [f"left out: {told}"]


def _show_beads(survey: SystemSurvey, ladder: Ladder, file_topology: mdtraj.Topology) -> None:
    particles = [file_topology.atom(int(i)) for i in survey.index]
    table = bead_table(ladder, survey.resolution, particles)
    for bead, particle in list(table.items())[:SHOWN_BEADS]:
        log.info("system %s: %s: %s", survey.name, bead, particle)
    if len(table) > SHOWN_BEADS:
        log.info("system %s: %d beads; `hpcbackmap inspect` shows all", survey.name, len(table))


def _broken_chain(topology: Topology) -> bool:
    chain = np.array(topology.chain_index)
    return bool((~np.array(topology.bonded)[1:] & (chain[1:] == chain[:-1])).any())


def _find_files(config: SystemConfig) -> list[str]:
    paths: list[str] = []
    for item in config.trajectories:
        found = (
            [item]
            if Path(item).is_file()
            else sorted(filter(os.path.isfile, glob(item, recursive=True)))
        )
        if not found:
            raise InputError(f"{item}: no such trajectory (system {config.name})")
        paths += found
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"system {config.name}: {path} is listed twice")
    return paths


def _source_names(paths: list[str]) -> list[str]:
    """File stems; where these are not unique, file names with as many folders as it takes."""
    names, depth = [Path(path).name.removesuffix(".gz").rpartition(".")[0] for path in paths], 0
    while len(set(names)) < len(names):
        depth += 1
        names = ["/".join(Path(path).parts[-depth:]) for path in paths]
    return names


def _require_nm(survey: SystemSurvey, first: np.ndarray, cells: np.ndarray | None) -> None:
    """Refuse files whose first frame [atoms, 3] has neighbours that are too near or too far on the median."""
    links = survey.links
    positions, _ = Mender(len(survey.index), links, gather=False).mend(
        first[None, survey.index], cells
    )
    if survey.ladder is not None:
        steps = links.lengths(positions)[0]
        low, high = typical_steps(links, survey.ladder, survey.resolution)
        kind, right = "beads", "{:.2g} to {:.2g} is right".format
        expected: tuple[float, ...] = (low, high)
        if survey.resolution == "com" and len(steps) and (abs(steps - TRANS) < 0.015).all():
            log.warning(
                "%s: all neighbours are 0.38 nm apart, as C-alpha atoms are; is `resolution: ca` meant?",
                survey.files[0].path,
            )
    else:
        sites = (
            positions[0] if survey.resolution == "ca" else positions[0, survey.topology.ca_index]
        )
        chain = np.array(survey.topology.chain_index)
        steps = np.linalg.norm(np.diff(sites, axis=0), axis=-1)[chain[1:] == chain[:-1]]
        (low, high), kind = CALPHA_RANGE, "C-alpha atoms"
        right, expected = "{:.3g} is right".format, (TRANS,)
    if len(steps) == 0:
        return
    path, median = survey.files[0].path, float(np.median(steps))
    if not low <= median <= high:
        guess = wrong_unit(path, steps, low, high) or (
            "its unit or its order of particles is wrong, or molecules are cut by the periodic box"
        )
        unit = length_unit(path)
        scale = 10 if unit == "Angstrom" else 1
        raise InputError(
            f"{path}: neighbouring {kind} of the first frame are {scale * median:.3g} {unit} "
            f"apart (median), {right(*(scale * value for value in expected))}: {guess}"
        )
