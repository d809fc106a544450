"""What is stiff stays stiff: an elastic network of one molecule's C-alpha distances, and traces that obey it.

Distances that hardly vary in the training frames are kept in frames unlike them, where a regression alone
bends domains that move as rigid bodies. The energy  sum_pairs (d - mean)^2 / (var + FLOOR^2) + anchor |x - x0|^2
is lowered on the fibre of the beads by majorisation (SMACOF; de Leeuw 1977): every step solves a fixed linear
system whose inverse is kept. Shapes: F frames, N particles, B beads, P pairs; nm.
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Elastic", "fit_elastic", "relax"]

CUTOFF = 1.0
"""Mean distance (nm) up to which a pair is held."""
FLOOR = 0.02
"""Spread (nm) that every distance is allowed at least."""


class Elastic(NamedTuple):
    """pairs int64 [2, P]; length, stiffness [P]; solve [N, N]: inverse of the anchored network on the fibre."""

    pairs: Tensor
    length: Tensor
    stiffness: Tensor
    solve: Tensor


def fit_elastic(fine: Tensor, mapping: Tensor, anchor: float) -> Elastic:
    """Network from training frames ``fine`` [F, N, 3]; mapping [B, N]; anchor: nm^-2, see `relax`."""
    total = torch.zeros(fine.shape[1], fine.shape[1], dtype=torch.float64, device=fine.device)
    squares = total.clone()
    for frame in fine:
        gap = torch.cdist(frame, frame, compute_mode="donot_use_mm_for_euclid_dist").double()
        total += gap
        squares += gap.square()
    mean = total / len(fine)
    variance = (squares / len(fine) - mean.square()).clamp_min(0)
    pairs = torch.nonzero(torch.triu(mean < CUTOFF, diagonal=1)).T
    stiffness = 1 / (variance[pairs[0], pairs[1]] + FLOOR**2)
    network = torch.zeros_like(mean)
    network[pairs[0], pairs[1]] = network[pairs[1], pairs[0]] = -stiffness
    network = torch.diag(anchor - network.sum(1)) + network
    free = torch.linalg.inv(network)
    beads = mapping.double() @ free
    solve = free - beads.T @ torch.linalg.solve(beads @ mapping.double().T, beads)
    kind = fine.dtype
    return Elastic(pairs, mean[pairs[0], pairs[1]].to(kind), stiffness.to(kind), solve.to(kind))


def relax(positions: Tensor, elastic: Elastic, anchor: float, steps: int) -> Tensor:
    """Traces [F, N, 3] of less elastic energy with the same beads; ``anchor`` as in `fit_elastic` or less."""
    start, (first, second) = positions, elastic.pairs
    for _ in range(steps):
        gap = positions[:, second] - positions[:, first]
        length = gap.norm(dim=-1).clamp_min(1e-6)
        pull = (elastic.stiffness * (1 - elastic.length / length)).unsqueeze(-1) * gap
        slope = anchor * (positions - start)
        slope = slope.index_add(1, first, pull, alpha=-1).index_add(1, second, pull)
        positions = positions - torch.einsum("nm,fmd->fnd", elastic.solve, slope)
    return positions
