"""What is stiff stays stiff: an elastic network of one molecule, and structures that obey it.

Distances that hardly vary in the training frames are kept in frames unlike them, where a regression alone
bends domains that move as rigid bodies. The energy

    sum_pairs (d - mean)^2 / (var + FLOOR^2) + ANCHOR |x - x0|^2

is lowered on the fibre of the beads by majorisation (SMACOF; de Leeuw 1977): every step solves a fixed linear
system, whose inverse is kept. Shapes: F frames, N particles, B beads, P pairs; nm.
"""

import torch
from torch import Tensor, nn

from hpcbackmap.stages.layers.bead_system import BeadSystem

__all__ = ["ATOMS", "MOST_ELASTIC", "TRACE", "ElasticNetwork"]

TRACE, ATOMS = (1.0, 8), (0.30, 12)
"""Mean distance (nm) up to which a pair is held, and steps, for C-alpha traces and for heavy atoms."""
MOST_ELASTIC = 3000
"""Particles of the largest molecule that gets a network: the inverse is a full matrix."""
FLOOR = 0.01
"""Spread (nm) that every distance is allowed at least."""
ANCHOR = 300.0
"""Stiffness (nm^-2) that ties each coordinate to where the decoder put it."""


class ElasticNetwork(nn.Module):
    """Moves positions [F, N, 3] down its energy; beads stay. Does nothing before `fit`."""

    length: Tensor
    stiffness: Tensor
    solve: Tensor

    def __init__(self, n: int, cutoff: float, steps: int):
        super().__init__()
        self.cutoff, self.steps = cutoff, steps
        for name in ("length", "stiffness", "solve"):
            self.register_buffer(name, torch.zeros(n, n))

    def fit(self, fine: Tensor, system: BeadSystem) -> None:
        """Statistics of training frames ``fine`` [F, N, 3], and the inverse."""
        mean, variance = _distances(fine)
        held = torch.triu(mean < self.cutoff, diagonal=1)
        stiffness = torch.where(held, 1 / (variance + FLOOR**2), 0)
        network = -stiffness - stiffness.T
        network = network + torch.diag(ANCHOR - network.sum(1))
        free = torch.linalg.inv(network)
        mapping = mean.new_zeros(system.n_coarse, len(mean))
        own = torch.arange(len(mean), device=mean.device)
        mapping[system.bead_of, own] = system.weight.to(mean)
        beads = mapping @ free
        solve = free - beads.T @ torch.linalg.solve(beads @ mapping.T, beads)
        for buffer, value in zip(
            (self.length, self.stiffness, self.solve), (mean, stiffness, solve), strict=True
        ):
            buffer.copy_(value)

    def forward(self, positions: Tensor) -> Tensor:
        start, (first, second) = positions, torch.nonzero(self.stiffness).T
        length = self.length[first, second].to(positions.dtype)
        stiffness = self.stiffness[first, second].to(positions.dtype)
        solve = self.solve.to(positions.dtype)
        for _ in range(self.steps):
            gap = positions[:, second] - positions[:, first]
            stretch = 1 - length / gap.norm(dim=-1).clamp_min(1e-6)
            pull = (stiffness * stretch).unsqueeze(-1) * gap
            slope = ANCHOR * (positions - start)
            slope = slope.index_add(1, first, pull, alpha=-1).index_add(1, second, pull)
            positions = positions - torch.einsum("nm,fmd->fnd", solve, slope)
        return positions


def _distances(fine: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of every distance over the frames, float64 [N, N]."""
    total = torch.zeros(fine.shape[1], fine.shape[1], dtype=torch.float64, device=fine.device)
    squares = total.clone()
    for frame in fine:
        gap = torch.cdist(frame, frame, compute_mode="donot_use_mm_for_euclid_dist").double()
        total += gap
        squares += gap.square()
    mean = total / len(fine)
    return mean, (squares / len(fine) - mean.square()).clamp_min(0)
