"""What a file calls its particles, and where they are: the way in for every format.

Shapes: F frames, P particles, R residues; positions in nm.
"""

import os
from dataclasses import replace
from functools import lru_cache
from operator import and_
from typing import Any

import mdtraj
import numpy as np

from hpcbackmap.protein.residue_kinds import modified_parent, residue_kind
from hpcbackmap.protein.residues import RESIDUES, standard_atom_name, standard_residue_name
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import ascii_name
from hpcbackmap.trajectories.formats import is_text, text_file
from hpcbackmap.trajectories.gromacs import gromacs_rows, is_gromacs
from hpcbackmap.trajectories.gsd import gsd_topology, is_gsd
from hpcbackmap.trajectories.mdtraj_files import OtherCount
from hpcbackmap.trajectories.molecules import ChainRow, ResidueRow, residue_steps, split
from hpcbackmap.trajectories.particles import SYMBOLS, Particles
from hpcbackmap.trajectories.reader import (
    count_particles,
    first_frames,
    holds_frames,
    impossible_cell,
    origin_of,
    reading,
)
from hpcbackmap.trajectories.remarks import remarks
from hpcbackmap.trajectories.text import Rows, suffix_of
from hpcbackmap.trajectories.units import unit_scale

__all__ = ["load_topology", "particles_from_mdtraj", "particles_of_chains", "read_particles"]

NAMES = {template.letter: name for name, template in RESIDUES.items()}
SAMPLE = 5
"""Frames that decide which neighbours are bonded: one bad frame must not."""
NAMING = (
    ".h5",
    ".hdf5",
    ".lh5",
    ".psf",
    ".prmtop",
    ".top",
    ".parm7",
    ".prm7",
    ".mol2",
    ".hoomdxml",
    ".arc",
)
"""Formats beside text and GSD that name particles; read through mdtraj."""


def read_particles(
    path: str, top: str | None = None, molecule: int | None = None, unit: str | None = None
) -> Particles:
    """The particles of ``path``, named by ``top`` if that is given.

    molecule: so many residues make a molecule, where neither names nor numbers tell. unit: of length of
    ``path``, where it is not that of its format. Raises InputError that names the file, and the line where
    there is one.
    """
    path, named = str(path), str(top or path)
    rows, disulphides, words = _rows(named)
    positions = cells = None
    if holds_frames(path):
        try:
            positions, cells = first_frames(path, rows, SAMPLE)
        except OtherCount as error:
            raise InputError(f"{error} ({named}){_part_of(rows, error.count)}") from None
        if (scale := unit_scale(path, unit)) != 1:
            positions, cells = (
                positions * np.float32(scale),
                None if cells is None else cells * scale,
            )
        if origin_of(path, rows).any():
            words.append(
                f"{path}: its particles are {np.abs(origin_of(path, rows)).max():.3g} nm from the origin; they "
                "are moved there, all frames alike"
            )
        if (cell := impossible_cell(path, rows)) is not None:
            edges = "; ".join(" ".join(f"{value:.4g}" for value in edge) for edge in cell)
            words.append(f"{path}: no box has the edges ({edges}) nm; it is dropped")
    return _assemble(named, rows, disulphides, words, positions, cells, molecule)


def _part_of(rows: Rows, count: int) -> str:
    """Which of a topology's particles are as many as a trajectory has, as the end of a sentence; or nothing."""
    protein = [residue_kind(name) in ("protein", "modified") for name in rows.residue_names]
    parts = {
        "CA atoms": [name == "CA" for name in rows.names],
        "BB beads": [name == "BB" for name in rows.names],
        "particles of protein": [True] * rows.n_atoms,
    }
    for what, chosen in parts.items():
        if count and sum(map(and_, protein, chosen)) == count:
            return f"; its {what} are as many: give a topology of these alone"
    return ""


def particles_of_chains(
    path: str, chains: list[str], molecule: int | None = None, unit: str | None = None
) -> Particles:
    """Particles of a trajectory without names, from the one-letter codes of chains: a bead for each residue.

    One chain stands for all copies. Fewer beads than letters have no names.

    A dump of LAMMPS knows its molecules itself, XYZ text does not. Raises InputError where there are more
    beads.
    """
    if is_text(path) and suffix_of(path) != ".xyz":
        return read_particles(path, None, molecule, unit)
    length, count = sum(map(len, chains)), count_particles(path)
    copies = count // length if len(chains) == 1 else 1
    if copies * length != count and count > length:
        raise InputError(
            f"{path}: {count} particles, --sequence has {length} residues; one bead for each is expected where "
            "no file names them (--top)"
        )
    named = chains * copies if copies * length == count else ["X" * count]
    rows = Rows([], [], [], [], [], [], [], [])
    for strand, letters in enumerate(named):
        rows.names.extend(["bead"] * len(letters))
        rows.residue_names.extend(NAMES.get(letter, letter) for letter in letters)
        rows.numbers.extend(range(1, len(letters) + 1))
        rows.strands.extend([strand] * len(letters))
        for column in (rows.insertions, rows.chains, rows.segments, rows.elements):
            column.extend([""] * len(letters))
    positions, cells = first_frames(path, rows, SAMPLE)
    scale = np.float32(unit_scale(path, unit))
    cells = None if cells is None else cells * scale
    return _assemble(path, rows, [], [], positions * scale, cells, molecule)


def particles_from_mdtraj(
    top: mdtraj.Topology,
    source: str,
    frames: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    molecule: int | None = None,
) -> Particles:
    """Particles that an mdtraj topology names; frames: some positions [F, P, 3], nm, or None."""
    return _assemble(source, _rows_of_mdtraj(top), [], [], frames, cells, molecule)


def load_topology(path: str) -> mdtraj.Topology:
    """mdtraj topology of any file that names particles. Raises InputError."""
    try:
        stamp = os.stat(path).st_mtime_ns
    except OSError:
        stamp = 0
    return _mdtraj_topology(str(path), stamp)


@lru_cache(maxsize=2)
def _mdtraj_topology(path: str, _changed: int) -> mdtraj.Topology:
    return read_particles(path).to_mdtraj()


def _assemble(
    source: str,
    rows: Rows,
    disulphides: list[Any],
    words: list[str],
    positions: np.ndarray | None,
    cells: np.ndarray | None,
    molecule: int | None,
) -> Particles:
    index, residues, chains = split(rows, positions, cells, molecule)
    particles = Particles(
        source=source,
        names=rows.names,
        residue=index,
        residues=residues,
        chains=chains,
        elements=_elements(rows),
        steps=residue_steps(rows.names, index, len(residues), positions, cells),
        positions=None if positions is None else positions[0],
        cell=None if cells is None or not cells[0].any() else cells[0],
        disulphides=_pairs(disulphides, residues, chains),
        words=words,
    )
    return replace(particles, words=words + remarks(particles))


def _rows(path: str) -> tuple[Rows, list[Any], list[str]]:
    """What the file says of its particles, its disulphides, and what there is to say."""
    with reading(path):
        if is_text(path):
            file = text_file(path)
            words = []
            if alternates := getattr(file, "alternates", 0):
                words.append(
                    f"{path}: {alternates} atoms are alternate locations of lower occupancy and left out"
                )
            if cell := getattr(file, "bad_cell", ""):
                words.append(
                    f"{path}: no box has the unit cell {' '.join(cell.split())}; it is dropped"
                )
            return file.rows, getattr(file, "disulphides", []), words
        if is_gsd(path):
            return _rows_of_mdtraj(gsd_topology(path)), [], []
        if not os.path.exists(path):
            raise FileNotFoundError(path)
        if is_gromacs(path):
            return gromacs_rows(path), [], []
        if suffix_of(path) not in NAMING:
            raise InputError(
                f"{path}: this format names no atoms; give a file that does (PDB, mmCIF, GRO, PSF, PRMTOP, "
                "TOP, …)"
            )
        if suffix_of(path) == ".top":
            return _rows_of_mdtraj(mdtraj.load_prmtop(ascii_name(path))), [], []
        return _rows_of_mdtraj(mdtraj.load_topology(ascii_name(path))), [], []


def _rows_of_mdtraj(top: mdtraj.Topology) -> Rows:
    rows = Rows([], [], [], [], [], [], [], [])
    for residue in top.residues:
        for atom in residue.atoms:
            rows.names.append(atom.name.strip())
            rows.residue_names.append(residue.name.strip())
            rows.numbers.append(int(residue.resSeq))
            rows.insertions.append(getattr(residue, "insertion", ""))
            rows.chains.append(str(residue.chain.chain_id or "").strip())
            rows.segments.append(str(residue.segment_id or "").strip())
            rows.strands.append(residue.chain.index)
            symbol = "" if atom.element is None else atom.element.symbol
            rows.elements.append("" if symbol == "VS" else symbol)
    return rows


def _elements(rows: Rows) -> list[str]:
    """Symbols of the file; where it has none, those of the atoms of residues and of hydrogens."""
    found = []
    for name, residue, symbol in zip(rows.names, rows.residue_names, rows.elements, strict=True):
        standard = standard_residue_name(residue) or modified_parent(residue)
        if not symbol and standard:
            plain = name.lstrip("0123456789")
            if standard_atom_name(standard, name) in RESIDUES[standard].atoms + ("OXT",):
                symbol = standard_atom_name(standard, name)[0]
            elif plain[:1] in ("H", "D") and len(plain) == len(name.rstrip()) - (
                len(name) - len(plain)
            ):
                symbol = "H"
        found.append(symbol if symbol.upper() in SYMBOLS else "")
    return found


def _pairs(
    disulphides: list[Any], residues: list[ResidueRow], chains: list[ChainRow]
) -> list[tuple[int, int]]:
    """Rows of residues for (chain, number, insertion); the first of several."""
    if not disulphides:
        return []
    place: dict[tuple[Any, ...], int] = {}
    for row, residue in enumerate(residues):
        key = chains[residue.chain].id, residue.number, residue.insertion
        place.setdefault(key, row)
    pairs = [(place[a], place[b]) for a, b in disulphides if a in place and b in place]
    return sorted((min(a, b), max(a, b)) for a, b in pairs if a != b)
