"""Closing projection of a C-alpha trace: bond lengths and contacts repaired, beads kept exactly.

Position-based constraints (Mueller et al. 2007) in Jacobi form: every violated bond or contact moves its
two particles half way, the moves are averaged, and each bead's mean displacement is taken out so that the
mapping onto the beads is untouched.
"""

import torch
from torch import Tensor
from torch_geometric.data import Batch

__all__ = ["close_calpha", "recentre"]

TRANS, CIS, LIMIT = 0.380, 0.295, 0.34
"""CA-CA distances of trans and cis links and the border between them, nm."""
CONTACT = 0.39
"""Smallest distance of C-alpha atoms that are not neighbours, nm."""
REFRESH, MARGIN = 25, 0.15
"""Contact candidates are looked up every so many iterations, this far (nm) beyond contact."""


def recentre(shift: Tensor, system: Batch) -> Tensor:
    """``shift`` [F, N, 3] less its weighted mean over each bead, so that beads do not move."""
    beads = torch.zeros(len(shift), len(system.freedom), 3, dtype=shift.dtype, device=shift.device)
    beads = beads.index_add(1, system.bead_of, shift * system.weight.to(shift.dtype).unsqueeze(-1))
    return shift - beads[:, system.bead_of]


def close_calpha(positions: Tensor, system: Batch, cis: Tensor, iterations: int = 150) -> Tensor:
    """C-alpha positions [F, N, 3] with bonds of ideal length and no contacts.

    cis: which bonds [bonds] are cis in this molecule. Beads stay where they are; what the beads make
    impossible (two beads closer or farther than any chain allows) stays violated.
    """
    first, second = system.bond_index.T
    ideal = torch.where(cis, CIS, TRANS).to(positions.dtype)
    neighbours = torch.zeros(len(system.bead_of), dtype=positions.dtype, device=positions.device)
    neighbours = neighbours.index_add(
        0, system.bond_index.flatten(), torch.ones(2 * len(first)).to(neighbours)
    )
    for step in range(iterations):
        if step % REFRESH == 0:
            pairs = _near_pairs(positions, system)
        gap = positions[:, second] - positions[:, first]
        length = gap.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        push = 0.5 * (length - ideal.unsqueeze(-1)) * gap / length
        move = torch.zeros_like(positions).index_add(1, first, push).index_add(1, second, -push)
        move = move / neighbours.clamp_min(1).unsqueeze(-1)
        move = move + _contact_moves(positions, pairs)
        positions = positions + 1.5 * recentre(move, system)
    return positions


def _near_pairs(positions: Tensor, system: Batch) -> Tensor:
    """Pairs of one molecule, not bonded, that may come into contact in any frame: [2, pairs]."""
    near = system.fine_system.unsqueeze(0) == system.fine_system.unsqueeze(1)
    first, second = system.bond_index.T
    near[first, second] = False
    reached = torch.zeros_like(near)
    for frame in positions:
        reached |= torch.cdist(frame, frame) < CONTACT + MARGIN
    return torch.nonzero(torch.triu(near & reached, diagonal=1)).T


def _contact_moves(positions: Tensor, pairs: Tensor) -> Tensor:
    first, second = pairs
    gap = positions[:, second] - positions[:, first]
    length = gap.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    push = 0.5 * (length - CONTACT).clamp_max(0) * gap / length
    return torch.zeros_like(positions).index_add(1, first, push).index_add(1, second, -push)
