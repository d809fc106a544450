"""Pairs of points that are close in space."""

import numpy as np

__all__ = ["pairs_within"]

FEW = 192
"""Points up to which all distances are half a ms more work than a tree, whose library takes 0.3 s to load."""


def pairs_within(points: np.ndarray, radius: float) -> np.ndarray:
    """Pairs of finite ``points`` [n, 3] at most ``radius`` apart, each once: int64 [P, 2], first < second."""
    if len(points) <= FEW:
        x, y, z = points.T.astype(np.float64)
        squared = np.subtract.outer(x, x) ** 2
        squared += np.subtract.outer(y, y) ** 2
        squared += np.subtract.outer(z, z) ** 2
        first, second = np.nonzero(squared <= radius * radius)
        once = first < second
        return np.stack([first[once], second[once]], axis=1)
    from scipy.spatial import cKDTree

    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)  # faster to build
    found: np.ndarray = tree.query_pairs(radius, output_type="ndarray").astype(np.int64)
    return found
