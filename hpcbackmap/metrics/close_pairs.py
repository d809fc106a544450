"""Pairs of atoms that are close in space, and pairs that are close along the bonds."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["CloseAtoms", "close_atoms", "count_pairs", "pair_keys", "pairs_within_two_bonds"]


class CloseAtoms(NamedTuple):
    """Close pairs of one frame: ``pairs`` int64 [P, 2], first < second; ``distances`` [P], nm."""

    pairs: np.ndarray
    distances: np.ndarray


def close_atoms(positions: np.ndarray, radius: float) -> CloseAtoms:
    """All pairs of ``positions`` [A, 3] within ``radius`` (nm)."""
    from scipy.spatial import cKDTree

    pairs = cKDTree(positions).query_pairs(radius, output_type="ndarray").astype(np.int64)
    distances = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)
    return CloseAtoms(pairs, distances)


def count_pairs(positions: np.ndarray, radius: float) -> int:
    """Number of pairs of ``positions`` [A, 3] within ``radius`` (nm)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    return int(tree.count_neighbors(tree, radius) - len(positions)) // 2


def pair_keys(pairs: np.ndarray, n_atoms: int) -> np.ndarray:
    """One number per pair [P, 2] with first < second: [P]."""
    return pairs[:, 0] * n_atoms + pairs[:, 1]


@lru_cache(maxsize=16)
def pairs_within_two_bonds(topology: Topology) -> np.ndarray:
    """Sorted keys (`pair_keys`) of the 1-2 and 1-3 pairs."""
    from scipy.sparse import coo_array, triu

    n, (first, second) = topology.n_atoms, topology.bonds.T
    ones = np.ones(len(first), dtype=np.int32)
    bonds = coo_array((ones, (first, second)), shape=(n, n)).tocsr()
    bonds = bonds + bonds.T
    near = triu(bonds + bonds @ bonds, k=1).tocoo()
    return np.unique(pair_keys(np.stack([near.row, near.col], axis=1).astype(np.int64), n))
