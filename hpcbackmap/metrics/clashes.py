"""Steric clashes between heavy atoms more than two bonds apart."""

import numpy as np

from hpcbackmap.metrics.close_pairs import CloseAtoms, pair_keys
from hpcbackmap.protein.topology import Topology

__all__ = ["OVERLAP", "SEVERE_OVERLAP", "clashing_pairs", "clashing_residues"]

SEVERE_OVERLAP = 0.12
"""nm; atoms this close would be bonded."""
OVERLAP = 0.20
"""nm; below every non-bonded distance of a good structure."""


def clashing_pairs(
    topology: Topology, close: CloseAtoms, near_keys: np.ndarray, cutoff: float
) -> np.ndarray:
    """Atom pairs of one frame closer than ``cutoff`` (nm) and not in ``near_keys``, int64 [C, 2].

    close: all pairs within the cutoff at least. near_keys: see `contacts.pairs_within_two_bonds`.
    """
    candidates = close.pairs[close.distances < cutoff]
    keys = pair_keys(candidates, topology.n_atoms)
    return candidates[~np.isin(keys, near_keys)]


def clashing_residues(topology: Topology, pairs: np.ndarray) -> float:
    """Share of the residues that take part in one of the pairs [C, 2]."""
    return len(np.unique(topology.atom_residue[pairs])) / topology.n_residues
