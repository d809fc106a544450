"""Autoregressive distribution of all rotatable torsions of a chain.

Peptide planes first: those of even residues on their own, those of odd residues given both neighbours, so
that the angle N-CA-C between two planes is respected. Then, residue by residue at once, the torsions of
open chain ends and of the side chain, each given the planes around it and the torsions before it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch

from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.stages.torsions import BINS, bin_of

__all__ = ["TorsionHead"]

ORDER = (Role.START_N, Role.END_C, Role.END_O, Role.CHI1, Role.CHI2, Role.CHI3, Role.CHI4)

PENALTY = 15.0
"""Taken off the logits of proline chi1 bins in which no ring can close."""

Choose = Callable[[Role, Tensor], Tensor]
"""Given a role and its logits [F, R, BINS], the torsions to use, rad [F, R]."""


class TorsionHead(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.even = nn.Linear(width, BINS)
        self.odd_context = nn.Linear(width, width)
        self.odd_previous = nn.Embedding(BINS, width)
        self.odd_next = nn.Embedding(BINS, width)
        self.odd = nn.Linear(width, BINS)
        self.context = nn.Linear(width, width)
        self.own_plane = nn.Embedding(BINS, width)
        self.previous_plane = nn.Embedding(BINS, width)
        self.earlier = nn.ModuleList(nn.Embedding(BINS, width) for _ in ORDER)
        self.heads = nn.ModuleList(nn.Linear(width, BINS) for _ in ORDER)

    def forward(self, h: Tensor, system: Batch, choose: Choose) -> Tensor:
        """All torsions [F, R, N_TORSIONS] in rad of features h [F, R, width]; 0 where there is none."""
        planes = self.planes(h, system, choose)
        return self.others(h, planes, system, choose)

    def planes(self, h: Tensor, system: Batch, choose: Choose) -> Tensor:
        """Rotations of the peptide planes [F, R]."""
        even = (system.place % 2 == 0) | ~system.torsion_mask[:, Role.PLANE]
        first = choose(Role.PLANE, self.even(h))
        bins = bin_of(first)
        previous = self.odd_previous(bins[:, system.bead_previous]) * system.bonded.unsqueeze(-1)
        following = self.odd_next(bins[:, system.bead_next])
        following = following * (system.leads & system.leads[system.bead_next]).unsqueeze(-1)
        logits = self.odd(nn.functional.silu(self.odd_context(h) + previous + following))
        second = choose(Role.PLANE, torch.where(even.unsqueeze(-1), self.even(h), logits))
        return torch.where(even, first, second)

    def others(self, h: Tensor, planes: Tensor, system: Batch, choose: Choose) -> Tensor:
        """All torsions given the planes [F, R]."""
        bins = bin_of(planes)
        context = self.context(h) + self.own_plane(bins) * system.leads.unsqueeze(-1)
        context = context + self.previous_plane(
            bins[:, system.bead_previous]
        ) * system.bonded.unsqueeze(-1)
        torsions = [planes] + [torch.zeros_like(planes)] * (N_TORSIONS - 1)
        for role, head, earlier in zip(ORDER, self.heads, self.earlier, strict=True):
            there = system.torsion_mask[:, role]
            if not there.any():
                continue
            logits = head(nn.functional.silu(context))
            if role == Role.CHI1:
                logits = logits - PENALTY * (system.proline.unsqueeze(-1) & ~_pucker(logits.device))
            angle = choose(role, logits)
            torsions[role] = torch.where(there, angle, 0.0)
            context = context + earlier(bin_of(angle)) * there.unsqueeze(-1)
        return torch.stack(torsions, -1)


def _pucker(device: torch.device) -> Tensor:
    """Bins of chi1 that a proline ring can have, |chi1| < 50 degrees: bool [BINS]."""
    centres = (torch.arange(BINS, device=device) + 0.5) * 360 / BINS - 180
    return centres.abs() < 50
