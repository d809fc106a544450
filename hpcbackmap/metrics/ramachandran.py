"""Residues whose phi and psi lie where most of a crystal's do, or where hardly any do."""

from functools import lru_cache

import numpy as np

from hpcbackmap.protein.ramachandran import BINS, KINDS, kind_of, regions
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import dihedrals, torsion_atoms

__all__ = ["BINS", "allowed_region", "ramachandran_favoured", "ramachandran_outliers"]


def ramachandran_outliers(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Which residues with phi and psi are outside the allowed regions, positions [F, A, 3]: bool [F, Q]."""
    known, inside = _inside(topology, positions, "allowed")
    found: np.ndarray = known & ~inside
    return found


def ramachandran_favoured(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Which residues with phi and psi are in the favoured regions, bool [F, Q]."""
    known, inside = _inside(topology, positions, "favoured")
    found: np.ndarray = known & inside
    return found


def _inside(topology: Topology, positions: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Where both angles are numbers, and lie in the regions of this name: bool [F, Q] each."""
    phi_atoms, psi_atoms, kinds = _residues(topology)
    phi, psi = dihedrals(positions, phi_atoms), dihedrals(positions, psi_atoms)
    known = np.isfinite(phi) & np.isfinite(psi)
    row, column = (_bin(np.where(known, angle, 0.0)) for angle in (phi, psi))
    return known, regions(name)[kinds, row, column]


def allowed_region(kind: str = "general") -> np.ndarray:
    """Where 99 % of residues of this kind (one of `KINDS`) lie, bool [BINS, BINS], phi by psi from -pi."""
    found: np.ndarray = regions("allowed")[KINDS.index(kind)]
    return found


def _bin(angle: np.ndarray) -> np.ndarray:
    return np.floor((angle + np.pi) / (2 * np.pi) * BINS).astype(int) % BINS


@lru_cache(maxsize=16)
def _residues(topology: Topology) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atoms of phi and of psi [Q, 4] of residues that have both, and their kinds [Q]."""
    (phi, at_phi), (psi, at_psi) = (torsion_atoms(topology, name) for name in ("phi", "psi"))
    both, of_phi, of_psi = np.intersect1d(at_phi, at_psi, return_indices=True)
    sequence = topology.sequence
    kinds = [kind_of(*sequence[i : i + 2]) for i in both]
    return phi[of_phi], psi[of_psi], np.array(kinds, dtype=np.int64)
