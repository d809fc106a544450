"""Bond graphs and bond lengths.

The graph is inferred from distances as in CGVAE (Wang et al., ICML 2022): atoms a and b are bonded
when they are closer than 1.3 times the sum of their covalent radii.
"""

import numpy as np

from hpcbackmap.metrics.close_pairs import CloseAtoms, pair_keys
from hpcbackmap.protein.topology import Topology

__all__ = [
    "BOND_RANGE",
    "bond_fraction_auc",
    "bond_lengths",
    "bond_rmsd",
    "graph_edit_ratio",
    "inferred_bonds",
    "net_bond_ratio",
    "off_lengths",
]

COVALENT_RADIUS = {"C": 0.068, "N": 0.068, "O": 0.068, "S": 0.102}
"""nm."""
TOLERANCE = 1.3
BOND_RANGE = TOLERANCE * 2 * max(COVALENT_RADIUS.values())
"""Longest distance (nm) that may count as a bond."""


def inferred_bonds(topology: Topology, close: CloseAtoms) -> np.ndarray:
    """Keys of the atom pairs of one frame that lie within bonding distance, sorted, [B].

    close: all pairs within `BOND_RANGE` at least.
    """
    radii = np.array([COVALENT_RADIUS[element] for element in topology.elements])
    bonded = close.distances < TOLERANCE * radii[close.pairs].sum(1)
    return np.sort(pair_keys(close.pairs[bonded], topology.n_atoms))


def graph_edit_ratio(generated: np.ndarray, truth: np.ndarray) -> float:
    """Bonds missing plus bonds too many, over the bonds of the truth (keys of `inferred_bonds`)."""
    return len(np.setxor1d(generated, truth, assume_unique=True)) / len(truth)


def net_bond_ratio(generated: np.ndarray, truth: np.ndarray) -> float:
    """Difference of the bond counts over that of the truth.

    The form that the reference codes print: missing and superfluous bonds cancel.
    """
    return abs(len(generated) - len(truth)) / len(truth)


def bond_lengths(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Lengths of the bonds of the topology, nm, [F, B]; positions [F, A, 3]."""
    first, second = topology.bonds.T
    found: np.ndarray = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    return found


def off_lengths(generated: np.ndarray, truth: np.ndarray, tolerance: float = 0.1) -> np.ndarray:
    """Share of lengths [F, B] off the truth's by more than ``tolerance`` of it, [F]."""
    found: np.ndarray = (np.abs(generated - truth) > tolerance * truth).mean(-1)
    return found


def bond_rmsd(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Root mean square difference of lengths [F, B], nm, [F]."""
    found: np.ndarray = np.sqrt(((generated - truth) ** 2).mean(-1))
    return found


def bond_fraction_auc(generated: np.ndarray, truth: np.ndarray, limit: float = 0.2) -> np.ndarray:
    """Share of lengths [F, B] within a tolerance, averaged over tolerances from 0 to ``limit``, [F].

    A length off by the share d counts for the tolerances above d: 1 - d / limit.
    """
    off = np.abs(generated - truth) / truth
    found: np.ndarray = np.maximum(0, 1 - off / limit).mean(-1)
    return found
