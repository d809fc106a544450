"""Looking at the input of one system before anything is written: its files, atoms and frames."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import mdtraj
import numpy as np

from hpcbackmap.config import SystemConfig
from hpcbackmap.errors import ConfigError, InputError
from hpcbackmap.frames.molecule import CALPHA_RANGE, require_bonds, require_numbers
from hpcbackmap.frames.trajectory import describe_file, holds_topology, load_topology, read_frames
from hpcbackmap.frames.units import length_unit, wrong_unit
from hpcbackmap.protein.residues import standard_atom_name, standard_residue_name
from hpcbackmap.protein.topology import Topology, topology_from_mdtraj

__all__ = ["SourceFile", "SystemSurvey", "survey_system"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceFile:
    """One trajectory file. start, stop: the frames of the system that it gives, after striding."""

    path: str
    name: str
    sha256: str
    n_frames: int
    start: int
    stop: int


@dataclass(frozen=True)
class SystemSurvey:
    """What a system will hold. index: file atom of each stored particle, int64.

    topology_file: where file atoms are named. dropped: file atoms left out of a frame, by kind.
    coarse: the files hold C-alpha atoms only, and ``index`` has one entry per residue.
    """

    name: str
    topology: Topology
    topology_file: str
    topology_sha256: str
    index: np.ndarray
    stride: int
    files: tuple[SourceFile, ...]
    dropped: dict[str, int]

    @property
    def coarse(self) -> bool:
        return len(self.index) != self.topology.n_atoms

    @property
    def n_frames(self) -> int:
        return self.files[-1].stop

    @property
    def sources(self) -> list[tuple[str, int, int]]:
        return [(file.name, file.start, file.stop) for file in self.files]

    def read(self, start: int, stop: int) -> Iterator[tuple]:
        """Pieces of frames ``start`` to ``stop``: positions float32 [n, particles, 3] (nm), frame numbers
        in the source file [n], times [n] (ps), unit cells [n, 3, 3] (nm) or None.

        Raises InputError that names file and frame for coordinates that are not numbers.
        """
        file_topology = load_topology(self.topology_file)
        for file in self.files:
            if start >= file.stop or stop <= file.start:
                continue
            first = (max(start, file.start) - file.start) * self.stride
            last = (min(stop, file.stop) - file.start - 1) * self.stride + 1
            number = first
            for piece, times, cells in read_frames(file.path, file_topology, first, last):
                skip = -(number - first) % self.stride
                positions = piece[skip :: self.stride][:, self.index]
                steps = np.arange(number, number + len(piece))[skip :: self.stride]
                require_numbers(positions, steps, file.path)
                require_bonds(self.topology, positions, steps, file.path)
                number += len(piece)
                if len(positions):
                    times = times[skip :: self.stride].astype(np.float64)
                    yield (
                        positions,
                        steps,
                        times,
                        None if cells is None else cells[skip :: self.stride],
                    )


def survey_system(config: SystemConfig) -> SystemSurvey:
    """Find the files of a system and hold them against its topology.

    Raises InputError that names the file: missing, truncated, of other atoms than the topology, not in nm,
    not numbers; ConfigError for a selection that mdtraj does not understand or that is empty.
    """
    paths = _find_files(config)
    topology_file = config.topology or paths[0]
    if not config.topology and not holds_topology(topology_file):
        raise InputError(
            f"{topology_file}: this format names no atoms; give system {config.name} a `topology` file"
        )
    file_topology = load_topology(topology_file)
    selected = _select(file_topology, config)
    files, start, first = [], 0, None
    for path, name in zip(paths, _source_names(paths), strict=True):
        if holds_topology(path):
            _require_same_atoms(file_topology, load_topology(path), topology_file, path)
        n_frames, frame = describe_file(path, file_topology)
        first = frame if first is None else first
        stop = start - (-n_frames // config.stride)
        files.append(SourceFile(path, name, _sha256(path), n_frames, start, stop))
        start = stop
    require_numbers(first[None, selected], np.zeros(1, int), paths[0])
    subset = file_topology.subset(selected)
    topology, index, dropped = topology_from_mdtraj(subset, first[selected], topology_file)
    if len(selected) < file_topology.n_atoms:
        dropped["not selected"] = file_topology.n_atoms - len(selected)
    survey = SystemSurvey(
        name=config.name,
        topology=topology,
        topology_file=topology_file,
        topology_sha256=_sha256(topology_file),
        index=selected[index],
        stride=config.stride,
        files=tuple(files),
        dropped=dropped,
    )
    _require_nm(survey, first)
    log.info(
        "system %s: %d residues, %d chain(s), %d frames from %d file(s); left out of every frame: %s",
        survey.name, topology.n_residues, len(topology.chain_ids), survey.n_frames, len(files),
        ", ".join(f"{count} {kind}" for kind, count in dropped.items()) or "nothing",
    )  # fmt: skip
    return survey


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


def _select(file_topology: mdtraj.Topology, config: SystemConfig) -> np.ndarray:
    if config.selection is None:
        return np.arange(file_topology.n_atoms)
    try:
        selected = file_topology.select(config.selection)
    except Exception as error:  # mdtraj passes on whatever its parser meets
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"system {config.name}: selection {config.selection!r} is not understood ({reason})"
        ) from None
    if len(selected) == 0:
        raise ConfigError(f"system {config.name}: selection {config.selection!r} selects no atom")
    return np.asarray(selected)


def _require_same_atoms(ours, theirs, our_file: str, their_file: str) -> None:
    if ours is theirs:
        return
    if ours.n_atoms != theirs.n_atoms:
        raise InputError(
            f"{their_file}: {theirs.n_atoms} atoms, the topology {our_file} has {ours.n_atoms}"
        )
    for a, b in zip(ours.atoms, theirs.atoms, strict=True):
        if _standard_names(a) != _standard_names(b):
            raise InputError(
                f"{their_file}: atom {b.serial or b.index + 1} is {b.name} of {b.residue}, "
                f"in the topology {our_file} it is {a.name} of {a.residue}"
            )


def _standard_names(atom) -> tuple[str, str]:
    residue = standard_residue_name(atom.residue.name) or atom.residue.name
    return residue, standard_atom_name(residue, atom.name)


def _require_nm(survey: SystemSurvey, first: np.ndarray) -> None:
    sites = survey.index if survey.coarse else survey.index[survey.topology.ca_index]
    chain = np.array(survey.topology.chain_index)
    steps = np.linalg.norm(np.diff(first[sites], axis=0), axis=-1)[chain[1:] == chain[:-1]]
    if len(steps) == 0:
        return
    path, median, (low, high) = survey.files[0].path, float(np.median(steps)), CALPHA_RANGE
    if not low <= median <= high:
        guess = wrong_unit(path, steps, low, high) or (
            "its unit or its order of atoms is wrong, or molecules are cut by the periodic box"
        )
        unit = length_unit(path)
        scale = 10 if unit == "Angstrom" else 1
        raise InputError(
            f"{path}: neighbouring C-alpha atoms of the first frame are {scale * median:.3g} {unit} "
            f"apart (median), {scale * 0.38:.3g} is right: {guess}"
        )


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
