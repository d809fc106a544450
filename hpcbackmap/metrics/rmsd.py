"""Root-mean-square deviations, with and without the best superposition.

Shapes: F frames, A atoms. All lengths nm.
"""

import numpy as np

__all__ = ["aligned_rmsd", "pairwise_rmsd", "rmsd", "superpose"]


def rmsd(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """RMSD of every frame as it lies, [F]; mobile and target [F, A, 3]."""
    return np.sqrt(((mobile - target) ** 2).sum(-1).mean(-1))


def aligned_rmsd(mobile: np.ndarray, target: np.ndarray) -> np.ndarray:
    """RMSD of every frame after its own best proper superposition, [F]."""
    return rmsd(superpose(mobile, target), target)


def superpose(
    mobile: np.ndarray,
    target: np.ndarray,
    mobile_sites: np.ndarray | None = None,
    target_sites: np.ndarray | None = None,
) -> np.ndarray:
    """``mobile`` [F, A, 3] moved as a rigid body onto ``target`` (Kabsch 1976), never mirrored.

    The movement is the one that superposes ``mobile_sites`` on ``target_sites`` [F, B, 3]; by
    default the atoms themselves.
    """
    mobile_sites = mobile if mobile_sites is None else mobile_sites
    target_sites = target if target_sites is None else target_sites
    mobile_centre = mobile_sites.mean(-2, keepdims=True, dtype=np.float64)
    target_centre = target_sites.mean(-2, keepdims=True, dtype=np.float64)
    covariance = np.swapaxes(mobile_sites - mobile_centre, -1, -2) @ (target_sites - target_centre)
    u, _, vt = np.linalg.svd(covariance)
    u[..., :, -1] *= np.sign(np.linalg.det(u) * np.linalg.det(vt))[..., None]
    return (mobile - mobile_centre) @ (u @ vt) + target_centre


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
    return np.sqrt(np.maximum(squares - 2 * values.sum(-1), 0) / mobile.shape[1])
