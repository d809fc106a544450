"""Root-mean-square deviations, with and without the best superposition.

Shapes: F frames, A atoms. All lengths nm.
"""

import numpy as np

from hpcbackmap.protein.geometry import superpose

__all__ = ["aligned_rmsd", "pairwise_rmsd", "rmsd", "superpose"]


def rmsd(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """RMSD of every frame as it lies, [F]; mobile and target [F, A, 3]."""
    found: np.ndarray = np.sqrt(((mobile - target) ** 2).sum(-1).mean(-1))
    return found


def aligned_rmsd(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """RMSD of every frame after its own best proper superposition, [F]."""
    return rmsd(superpose(mobile, target), target)


def pairwise_rmsd(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Superposed RMSD of every mobile frame [F, A, 3] to every target frame [G, A, 3]: [F, G].

    From the singular values alone, without moving anything.
    """
    mobile = (mobile - mobile.mean(1, keepdims=True)).astype(np.float64)
    target = (target - target.mean(1, keepdims=True)).astype(np.float64)
    covariance = np.einsum("fai,gaj->fgij", mobile, target, optimize=True)
    values = np.linalg.svd(covariance, compute_uv=False)
    values[..., 2] *= np.sign(np.linalg.det(covariance))
    squares = (mobile**2).sum((1, 2))[:, None] + (target**2).sum((1, 2))[None, :]
    found: np.ndarray = np.sqrt(np.maximum(squares - 2 * values.sum(-1), 0) / mobile.shape[1])
    return found
