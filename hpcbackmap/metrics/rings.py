"""Rings that a bond of another residue passes through."""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["pierced_rings", "ring_atoms"]

RINGS = {
    "HIS": (("CG", "ND1", "CE1", "NE2", "CD2"),),
    "PHE": (("CG", "CD1", "CE1", "CZ", "CE2", "CD2"),),
    "PRO": (("N", "CA", "CB", "CG", "CD"),),
    "TRP": (("CG", "CD1", "NE1", "CE2", "CD2"), ("CD2", "CE2", "CZ2", "CH2", "CZ3", "CE3")),
    "TYR": (("CG", "CD1", "CE1", "CZ", "CE2", "CD2"),),
}
REACH = 0.3
"""nm; the middle of a bond through a ring is nearer to the centre of the ring."""


def ring_atoms(topology: Topology) -> np.ndarray:
    """Atoms of all rings in their order around the ring, int64 [Q, 6]; rings of five end with -1."""
    rings = [
        ([topology.atom_index[i, name] for name in ring] + [-1])[:6]
        for i, residue in enumerate(topology.sequence)
        for ring in RINGS.get(residue, ())
    ]
    return np.array(rings, dtype=np.int64).reshape(-1, 6)


def pierced_rings(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Number of rings with a bond of another residue through them, [F]; positions [F, A, 3].

    A bond passes through if it crosses one of the triangles between the centre of the ring and two
    neighbours on it. Bonds that share an atom with the ring are left out.
    """
    from scipy.spatial import cKDTree

    rings, bonds = ring_atoms(topology), topology.bonds
    if not len(rings):
        return np.zeros(len(positions), dtype=np.int64)
    count = np.zeros(len(positions), dtype=np.int64)
    size = np.where(rings[:, 5] < 0, 5, 6)
    following = np.roll(rings, -1, axis=1)
    following[size == 5, 4] = rings[size == 5, 0]
    for f, frame in enumerate(positions.astype(np.float64)):
        corners = np.where((rings >= 0)[..., None], frame[rings], 0.0)
        centres = corners.sum(1) / size[:, None]
        middles = frame[bonds].mean(1)
        near = cKDTree(centres).query_ball_tree(cKDTree(middles), REACH)
        ring = np.repeat(np.arange(len(rings)), [len(found) for found in near])
        bond = np.concatenate([np.array(found, dtype=np.int64) for found in near])
        apart = ~(bonds[bond][:, :, None] == rings[ring][:, None]).any((1, 2))
        ring, bond = ring[apart], bond[apart]
        begin, end = frame[bonds[bond, 0]], frame[bonds[bond, 1]]
        through = np.zeros(len(ring), dtype=bool)
        for k in range(6):
            inside = k < size[ring]
            a, b = frame[rings[ring, k]], frame[following[ring, k]]
            through |= inside & _crosses(begin, end, centres[ring], a, b)
        count[f] = len(np.unique(ring[through]))
    return count


def _crosses(
    begin: np.ndarray, end: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Does the segment cross the triangle? All [P, 3]; signs of the volumes that they span, [P]."""

    def volume(p: np.ndarray, q: np.ndarray, r: np.ndarray, s: np.ndarray) -> np.ndarray:
        found: np.ndarray = (np.cross(q - p, r - p) * (s - p)).sum(-1)
        return found

    sides = volume(a, b, c, begin) * volume(a, b, c, end) < 0
    edges = np.stack([volume(begin, end, *edge) for edge in ((a, b), (b, c), (c, a))])
    found: np.ndarray = sides & ((edges > 0).all(0) | (edges < 0).all(0))
    return found
