"""Ladders of nested beads over one chain: the same top beads whatever lies between them and the atoms."""

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping

__all__ = ["ROADS", "SHORTEST", "ladder_of", "rungs_of"]

ROADS = {
    "10-1": ("fg", "ucg10"),
    "10-2": ("fg", "ca", "ucg10"),
    "10-3": ("fg", "ca", "ucg5", "ucg10"),
    "20-1": ("fg", "ucg20"),
    "20-2": ("fg", "ca", "ucg20"),
    "20-4": ("fg", "ca", "ucg5", "ucg10", "ucg20"),
}
"""Residues of a bead at the top, steps, and the resolutions of each ladder, fine to coarse."""
FEWEST = 3
"""Beads of a chain at least: fewer have no orientation."""
SHORTEST = 40
"""Residues of a chain at least, so that beads of 5 have three of them."""


def rungs_of(road: str) -> list[tuple[str, str]]:
    """(coarse, fine) of each rung, from the top down."""
    names = ROADS[road]
    return [(names[i], names[i - 1]) for i in range(len(names) - 1, 0, -1)]


def ladder_of(topology: Topology, top: int, resolutions: tuple[str, ...]) -> Ladder:
    """Ladder of one chain; ``top``: residues of the largest beads of the road that it is a part of.

    Beads of 10 and of 5 are halves and quarters of those of 20, so that levels nest exactly. A bead is the
    mean of the C-alpha atoms of its residues at every level.
    """
    n, mappings, below = topology.n_residues, [], None
    of_residue = np.arange(n)
    calpha = np.zeros(topology.n_atoms)
    calpha[topology.ca_index] = 1
    for name in resolutions[1:]:
        groups = np.arange(n) if name == "ca" else _runs(n, top, int(name[3:]))
        if below is None:
            mappings.append(Mapping(groups[topology.atom_residue], calpha))
        else:
            first = np.unique(of_residue, return_index=True)[1]
            mappings.append(Mapping(groups[first], np.bincount(of_residue).astype(float)))
        below, of_residue = name, groups
    return Ladder(topology, resolutions, tuple(mappings))


def _runs(n: int, top: int, size: int) -> np.ndarray:
    """Bead of each residue: ``top // size`` even pieces of each of the largest beads."""
    count = max(FEWEST, round(n / top)) * (top // size)
    return np.arange(n) * count // n
