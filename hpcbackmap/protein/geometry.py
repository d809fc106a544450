"""Superposition of rigid bodies, never mirrored (Kabsch 1976): of NumPy arrays, and of PyTorch tensors.

One for results, in float64 and without PyTorch, the other for stages, differentiable and around many centres.
Shapes: F frames, A atoms, B sites, C centres.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["superpose", "superposed", "turned"]


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
    found: np.ndarray = (mobile - mobile_centre) @ (u @ vt) + target_centre
    return found


def turned(positions: "Tensor", reference: "Tensor", weight: "Tensor") -> "Tensor":
    """Rotations [F, C, 3, 3] that turn each frame onto ``reference`` [B, 3] around each centre.

    positions [F, B, 3]; weight [C, B]: how much each bead counts for each centre. Kabsch (1976), proper
    rotations only; the rows are the axes of the reference seen in the frame.
    """
    import torch

    weight = weight / weight.sum(-1, keepdim=True)
    centre = torch.einsum("cb,fbi->fci", weight, positions)
    there = weight @ reference
    covariance = torch.einsum("cb,fbi,bj->fcij", weight, positions, reference)
    covariance = covariance - centre.unsqueeze(-1) * there.unsqueeze(-2)
    u, _, vt = torch.linalg.svd(covariance.transpose(-1, -2))
    sign = torch.sign(torch.linalg.det(u @ vt))
    u = torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], -1)
    found: Tensor = u @ vt
    return found


def superposed(positions: "Tensor", reference: "Tensor") -> "Tensor":
    """Centred frames [F, B, 3] turned onto ``reference`` [B, 3]."""
    import torch

    positions = positions - positions.mean(1, keepdim=True)
    rotation = turned(positions, reference, torch.ones_like(reference[:, :1]).T)[:, 0]
    return torch.einsum("fij,fbj->fbi", rotation, positions)
