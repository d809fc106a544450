"""The way back: the particles that heavy atoms become in a representation, to test and to judge by."""

from collections.abc import Iterator

import numpy as np

from hpcbackmap.protein.residues import BACKBONE, RESIDUES
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.representations import bead_tables
from hpcbackmap.resolution.representations.bead_tables import masses

__all__ = ["coarse_grained"]


def coarse_grained(
    name: str, topology: Topology, positions: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, residues [P] and positions [F, P, 3] of the particles that atoms [F, A, 3] are in ``name``."""
    names, residue, beads = [], [], []
    index = topology.atom_index
    for number, kind in enumerate(topology.sequence):
        atoms = [index[number, atom] for atom in RESIDUES[kind].atoms]
        for bead, weight in _particles(name, kind):
            share = (weight / weight.sum())[: len(atoms)]
            names.append(bead)
            residue.append(number)
            beads.append(np.einsum("a,fax->fx", share, positions[:, atoms].astype(np.float64)))
    return names, np.array(residue), np.stack(beads, 1).astype(np.float32)


def _particles(name: str, residue: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and masses of each particle of a residue."""
    yield from _backbone_particles(name, residue)
    yield from _side_particles(name, residue)


def _backbone_particles(name: str, residue: str) -> Iterator[tuple[str, np.ndarray]]:
    """Those that place a residue."""
    if name in ("ca", "ca+sc", "ca+cb", "ca+com"):
        yield "CA", masses(residue, "CA")
    if name == "com" or name == "ca+com":
        yield "CA" if name == "com" else "COM", bead_tables.residue_masses(residue)
    if name in ("bb", "bb+sc", "martini3"):
        yield "BB", bead_tables.backbone_masses(residue)
    if name == "martini2":
        yield "BB", bead_tables.martini2_backbone_masses(residue)
    if name == "backbone":
        for atom in BACKBONE:
            yield atom, masses(residue, atom)


def _side_particles(name: str, residue: str) -> Iterator[tuple[str, np.ndarray]]:
    """Those of side chains."""
    if name == "sc" or (name in ("ca+sc", "bb+sc") and residue != "GLY"):
        bead = "SC1" if name == "bb+sc" else "SC"
        yield bead, bead_tables.side_chain_masses(residue)
    if name == "ca+cb" and residue != "GLY":
        yield "CB", masses(residue, "CB")
    if name in ("martini2", "martini3"):
        table = bead_tables.MARTINI2 if name == "martini2" else bead_tables.MARTINI3
        for number, weights in enumerate(table[residue]):
            yield f"SC{number + 1}", weights
