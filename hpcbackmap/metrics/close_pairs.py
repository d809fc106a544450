"""Pairs of atoms that are close in space, and pairs that are close along the bonds."""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from hpcbackmap.protein.neighbours import pairs_within
from hpcbackmap.protein.topology import Topology

__all__ = ["CloseAtoms", "close_atoms", "count_pairs", "pair_keys", "pairs_within_two_bonds"]


class CloseAtoms(NamedTuple):
    """Close pairs of one frame: ``pairs`` int64 [P, 2], first < second; ``distances`` [P], nm."""

    pairs: np.ndarray
    distances: np.ndarray


def close_atoms(positions: np.ndarray, radius: float) -> CloseAtoms:
    """All pairs of ``positions`` [A, 3] within ``radius`` (nm)."""
    pairs = pairs_within(positions, radius)
    distances = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)
    return CloseAtoms(pairs, distances)


def count_pairs(positions: np.ndarray, radius: float) -> int:
    """Number of pairs of ``positions`` [A, 3] within ``radius`` (nm)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(positions)
    return int(tree.count_neighbors(tree, radius) - len(positions)) // 2


def pair_keys(pairs: np.ndarray, n_atoms: int) -> np.ndarray:
    """One number per pair [P, 2] with first < second: [P]."""
    found: np.ndarray = pairs[:, 0] * n_atoms + pairs[:, 1]
    return found


@lru_cache(maxsize=16)
def pairs_within_two_bonds(topology: Topology) -> np.ndarray:
    """Sorted keys (`pair_keys`) of the 1-2 and 1-3 pairs."""
    near = [topology.bonds.astype(np.int64), *_ends_of_angles(topology.bonds, topology.n_atoms)]
    return np.unique(pair_keys(np.sort(np.concatenate(near), axis=1), topology.n_atoms))


def _ends_of_angles(bonds: np.ndarray, n_atoms: int) -> list[np.ndarray]:
    """Pairs [P, 2] of atoms bonded to one atom, for each two of an atom's places for bonds."""
    ends = np.concatenate([bonds, bonds[:, ::-1]]).astype(np.int64)
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    count = np.bincount(ends[:, 0], minlength=n_atoms)
    place = np.arange(len(ends)) - np.repeat(np.cumsum(count) - count, count)
    bonded = np.full((n_atoms, int(count.max(initial=0))), -1)
    bonded[ends[:, 0], place] = ends[:, 1]
    pairs = (bonded[:, list(two)] for two in combinations(range(bonded.shape[1]), 2))
    return [pair[pair[:, 1] >= 0] for pair in pairs]
