"""Frames of one molecule's beads by superposing their surroundings on a mean frame.

Where the molecule is known, a frame from many beads is steadier than one from two neighbours. Shapes: F
frames, B beads, C centres.
"""

import torch
from torch import Tensor

__all__ = ["mean_frame", "superposed", "surroundings", "turned"]

ROUNDS = 5


def turned(positions: Tensor, reference: Tensor, weight: Tensor) -> Tensor:
    """Rotations [F, C, 3, 3] that turn each frame onto ``reference`` [B, 3] around each centre.

    positions [F, B, 3]; weight [C, B]: how much each bead counts for each centre. Kabsch (1976), proper
    rotations only; the rows are the axes of the reference seen in the frame.
    """
    weight = weight / weight.sum(-1, keepdim=True)
    centre = torch.einsum("cb,fbi->fci", weight, positions)
    there = weight @ reference
    covariance = torch.einsum("cb,fbi,bj->fcij", weight, positions, reference)
    covariance = covariance - centre.unsqueeze(-1) * there.unsqueeze(-2)
    u, _, vt = torch.linalg.svd(covariance.transpose(-1, -2))
    sign = torch.sign(torch.linalg.det(u @ vt))
    u = torch.cat([u[..., :2], u[..., 2:] * sign[..., None, None]], -1)
    return u @ vt


def superposed(positions: Tensor, reference: Tensor) -> Tensor:
    """Centred frames [F, B, 3] turned onto ``reference`` [B, 3]."""
    positions = positions - positions.mean(1, keepdim=True)
    rotation = turned(positions, reference, torch.ones_like(reference[:, :1]).T)[:, 0]
    return torch.einsum("fij,fbj->fbi", rotation, positions)


def mean_frame(positions: Tensor) -> Tensor:
    """Mean of the frames [F, B, 3] superposed on it, found in a few rounds: [B, 3]."""
    mean = positions[0] - positions[0].mean(0)
    for _ in range(ROUNDS):
        mean = superposed(positions, mean).mean(0)
    return mean


def surroundings(reference: Tensor, reach: float) -> Tensor:
    """How much each bead counts for each, [B, B]: a Gaussian of their distance in ``reference`` [B, 3]."""
    gap = torch.cdist(reference, reference, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.exp(-0.5 * (gap / reach).square())
