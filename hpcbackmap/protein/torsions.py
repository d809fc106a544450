"""Torsion angles of backbone and side chains, radians in (-pi, pi]."""

from functools import lru_cache

import numpy as np

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.topology import Topology

__all__ = [
    "CIS",
    "PLANAR",
    "SYMMETRIC",
    "TORSIONS",
    "angle_between",
    "dihedrals",
    "is_symmetric",
    "omega_angles",
    "torsion_atoms",
]

PLANAR = np.deg2rad(150)
"""A trans peptide bond has |omega| above this."""
CIS = np.deg2rad(30)
"""A cis peptide bond has |omega| below this."""

TORSIONS = ("phi", "psi", "omega", "chi1", "chi2", "chi3", "chi4")
SYMMETRIC = {("PHE", 2), ("TYR", 2), ("ASP", 2), ("GLU", 3)}
"""Residue and number of a chi that half a turn maps onto itself: the atoms there are alike."""


def dihedrals(positions: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """Dihedral angle of each row of ``atoms`` [Q, 4] in ``positions`` [F, A, 3]: [F, Q].

    IUPAC sign. NaN where three atoms are collinear or coincide.
    """
    points = positions[:, atoms].astype(np.float64)
    first, axis, last = (points[:, :, k + 1] - points[:, :, k] for k in range(3))
    left, right = np.cross(first, axis), np.cross(axis, last)
    sine = np.linalg.norm(axis, axis=-1) * (first * right).sum(-1)
    angle = np.arctan2(sine, (left * right).sum(-1))
    flat = np.minimum((left**2).sum(-1), (right**2).sum(-1)) < 1e-12
    return np.where(flat, np.nan, angle)


def angle_between(first: np.ndarray, second: np.ndarray, symmetric: np.ndarray) -> np.ndarray:
    """Unsigned angle, radians in [0, pi]; where ``symmetric`` modulo half a turn, in [0, pi/2]."""
    apart = np.abs(first - second) % (2 * np.pi)
    apart = np.minimum(apart, 2 * np.pi - apart)
    found: np.ndarray = np.where(symmetric, np.minimum(apart, np.pi - apart), apart)
    return found


def is_symmetric(topology: Topology, kind: str, residues: np.ndarray) -> np.ndarray:
    """Which torsions of one kind repeat after half a turn, bool [Q]; residues as of `torsion_atoms`."""
    number = int(kind[3:]) if kind.startswith("chi") else 0
    return np.array([(topology.sequence[i], number) in SYMMETRIC for i in residues], dtype=bool)


@lru_cache(maxsize=64)
def torsion_atoms(topology: Topology, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Atoms [Q, 4] of all torsions of one kind of `TORSIONS`, and the residue of each, [Q].

    omega belongs to the residue after the peptide bond.
    """
    rows, residues = [], []
    for i in range(topology.n_residues):
        row = _atoms_of(topology, kind, i)
        if row is not None:
            rows.append([topology.atom_index[key] for key in row])
            residues.append(i)
    return np.array(rows, dtype=np.int64).reshape(-1, 4), np.array(residues, dtype=np.int64)


def _atoms_of(topology: Topology, kind: str, i: int) -> list[tuple[int, str]] | None:
    after_bond = topology.bonded[i]
    before_bond = i + 1 < topology.n_residues and topology.bonded[i + 1]
    if kind == "phi" and after_bond:
        return [(i - 1, "C"), (i, "N"), (i, "CA"), (i, "C")]
    if kind == "psi" and before_bond:
        return [(i, "N"), (i, "CA"), (i, "C"), (i + 1, "N")]
    if kind == "omega" and after_bond:
        return [(i - 1, "CA"), (i - 1, "C"), (i, "N"), (i, "CA")]
    if kind.startswith("chi"):
        for row in RESIDUES[topology.sequence[i]].placements:
            if row.chi == int(kind[3:]):
                return [(i, name) for name in (row.great, row.grandparent, row.parent, row.atom)]
    return None


def omega_angles(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """omega of the peptide bonds, radians, [F, links]."""
    return dihedrals(positions, torsion_atoms(topology, "omega")[0])
