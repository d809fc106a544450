"""The smoothest trace through bead centres: where the refinement of a C-alpha trace starts."""

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import splu

from hpcbackmap.resolution.mapping import Mapping

__all__ = ["SPLINE_BEADS", "spline_weights"]

SPLINE_BEADS = 16
"""Beads that a particle's place on the spline may depend on; the influence falls fourfold per bead."""
TENSION, ANCHOR = 1e-4, 1e-9
"""Penalties of length and of everything, beside bending: what bending leaves open stays short."""


def spline_weights(mapping: Mapping, chain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beads int64 [N, 16] and weights float32 [N, 16], rows summing to 1: trace = sum(weight * bead).

    The trace has the least sum of squared second differences along each chain among all whose
    bead centres are the given ones. chain: chain of each of the N particles, in order along it.
    Where there are fewer beads than 16, bead 0 is repeated with weight 0.
    """
    n, beads = mapping.n_fine, mapping.n_coarse
    stiffness = _differences(chain, (1.0, -2.0, 1.0)) + TENSION * _differences(chain, (1.0, -1.0))
    stiffness = stiffness + ANCHOR * sparse.identity(n)
    matrix = sparse.csc_matrix(mapping.matrix)
    system = sparse.bmat([[stiffness, matrix.T], [matrix, None]], format="csc")
    right = np.zeros((n + beads, beads))
    right[n:] = np.eye(beads)
    full = splu(system).solve(right)[:n]
    count = min(SPLINE_BEADS, beads)
    index = np.zeros((n, SPLINE_BEADS), dtype=np.int64)
    weight = np.zeros((n, SPLINE_BEADS))
    index[:, :count] = np.argsort(-np.abs(full), axis=1, kind="stable")[:, :count]
    weight[:, :count] = np.take_along_axis(full, index[:, :count], 1)
    return index, (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def _differences(chain: np.ndarray, stencil: tuple[float, ...]) -> sparse.csc_matrix:
    """Sum of squares of a difference along the chains, as a quadratic form [N, N]."""
    n, reach = len(chain), len(stencil)
    first = np.flatnonzero(chain[: n - reach + 1] == chain[reach - 1 :])
    rows = np.repeat(np.arange(len(first)), reach)
    columns = (first[:, None] + np.arange(reach)).ravel()
    values = np.tile(stencil, len(first))
    matrix = sparse.csc_matrix((values, (rows, columns)), shape=(len(first), n))
    return matrix.T @ matrix
