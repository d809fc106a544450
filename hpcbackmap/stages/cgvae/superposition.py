"""Frames of one molecule's beads by superposing their surroundings on a mean frame.

Where the molecule is known, a frame from many beads is steadier than one from two neighbours. Shapes: F
frames, B beads, C centres.
"""

import torch
from torch import Tensor

from hpcbackmap.protein.geometry import superposed, turned

__all__ = ["mean_frame", "superposed", "surroundings", "turned"]

ROUNDS = 5


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
