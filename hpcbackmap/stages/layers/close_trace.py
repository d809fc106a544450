"""Closing projection of a C-alpha trace: bond lengths, angles and contacts repaired, beads kept exactly.

Position-based constraints (Mueller et al. 2007) in Jacobi form: every violated bond, angle or contact moves
its two particles half way, the moves are averaged, and each bead's mean displacement is taken out so that the
mapping onto the beads is untouched.
"""

import torch
from torch import Tensor

from hpcbackmap.protein.residues import CIS, TRANS
from hpcbackmap.stages.layers.bead_system import BeadSystem
from hpcbackmap.stages.layers.geometry import pairs_within

__all__ = ["close_calpha", "recentre"]

CONTACT = 0.39
"""Smallest distance of C-alpha atoms that are not neighbours, nm."""
ANGLE = (0.50, 0.73)
"""Bounds of the distance of C-alpha atoms two bonds apart, nm: angles of 82 to 148 degrees."""
TOLERANCE, CHECK = 0.005, 5
"""Errors (nm) that may stay, and after how many iterations they are looked for."""
REFRESH, MARGIN = 25, 0.15
"""Contact candidates are looked up every so many iterations, this far (nm) beyond contact."""


def recentre(shift: Tensor, system: BeadSystem) -> Tensor:
    """``shift`` [F, N, 3] less its weighted mean over each bead, so that beads do not move."""
    beads = torch.zeros(len(shift), system.n_coarse, 3, dtype=shift.dtype, device=shift.device)
    beads = beads.index_add(1, system.bead_of, shift * system.weight.to(shift.dtype).unsqueeze(-1))
    return shift - beads[:, system.bead_of]


def close_calpha(
    positions: Tensor, system: BeadSystem, cis: Tensor, iterations: int = 150
) -> Tensor:
    """C-alpha positions [F, N, 3] with bonds of ideal length, possible angles and no contacts.

    cis: which bonds are cis, [bonds] or [F, bonds]. Beads stay where they are; what the beads make
    impossible (two beads closer or farther than any chain allows) stays violated. A molecule without
    violations is left alone from then on.
    """
    if not positions.shape[1] or not len(system.bond_index):
        return positions
    bonds = system.bond_index.T
    length = torch.where(cis, CIS, TRANS).to(positions.dtype).expand(len(positions), -1)
    follows = bonds[1, :-1] == bonds[0, 1:]
    ends = torch.stack([bonds[0, :-1][follows], bonds[1, 1:][follows]])
    share = _shares(bonds, positions), _shares(ends, positions)
    result, active = positions.clone(), torch.arange(len(positions), device=positions.device)
    for step in range(iterations):
        if step % REFRESH == 0:
            pairs, near = _near_pairs(positions, system)
        if step % CHECK == 0:
            todo = _violated(positions, bonds, length, pairs, system)
            rest = todo.any(1)
            result[active[~rest]] = positions[~rest]
            active, positions, length, near = (x[rest] for x in (active, positions, length, near))
            if not len(active):
                return result
            moving = todo[rest][:, system.fine_system].unsqueeze(-1)
        move = _moves(positions, bonds, length, length) / share[0]
        move = move + 0.5 * _moves(positions, ends, *ANGLE) / share[1]
        move = move + _moves(positions, pairs, CONTACT * near, torch.inf)
        positions = positions + 1.5 * recentre(move, system) * moving
    result[active] = positions
    return result


def _violated(
    positions: Tensor, bonds: Tensor, length: Tensor, pairs: Tensor, system: BeadSystem
) -> Tensor:
    """Whether a molecule has a bond or a contact beyond TOLERANCE in a frame, [F, S]."""
    apart = (positions[:, bonds[1]] - positions[:, bonds[0]]).norm(dim=-1)
    off = ((apart - length).abs() > TOLERANCE).to(positions.dtype)
    apart = (positions[:, pairs[1]] - positions[:, pairs[0]]).norm(dim=-1)
    close = (apart < CONTACT - TOLERANCE).to(positions.dtype)
    count = torch.zeros(len(positions), system.n_systems, dtype=off.dtype, device=off.device)
    count = count.index_add(1, system.fine_system[bonds[0]], off)
    return count.index_add(1, system.fine_system[pairs[0]], close) > 0


def _shares(pairs: Tensor, positions: Tensor) -> Tensor:
    """In how many pairs each particle is, at least 1: [N, 1]."""
    count = torch.bincount(pairs.flatten(), minlength=positions.shape[1])
    return count.clamp_min(1).unsqueeze(-1).to(positions.dtype)


def _moves(positions: Tensor, pairs: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Half of what is missing to bring each pair's distance between ``low`` and ``high``, summed: [F, N, 3]."""
    first, second = pairs
    gap = positions[:, second] - positions[:, first]
    length = gap.norm(dim=-1).clamp_min(1e-6)
    excess = (length - high).clamp_min(0) + (length - low).clamp_max(0)
    push = (0.5 * excess / length).unsqueeze(-1) * gap
    return torch.zeros_like(positions).index_add(1, first, push).index_add(1, second, -push)


def _near_pairs(positions: Tensor, system: BeadSystem) -> tuple[Tensor, Tensor]:
    """Pairs of one molecule, not bonded, that may come into contact in some frame, [2, pairs], and in which.

    The second is 1 or 0 [F, pairs]: what a frame does must not depend on the frames beside it.
    """
    count, reach = positions.shape[1], CONTACT + MARGIN
    finite = positions[torch.isfinite(positions).flatten(1).all(1)]
    found = [torch.stack(pairs_within(frame, system.fine_system, reach)) for frame in finite]
    first, second = torch.cat([system.bond_index.new_zeros(2, 0), *found], 1)
    keys = torch.unique(first * count + second)
    bonds = system.bond_index.sort(1).values
    keys = keys[~torch.isin(keys, bonds[:, 0] * count + bonds[:, 1])]
    pairs = torch.stack([keys // count, keys % count])
    gap = (positions[:, pairs[0]] - positions[:, pairs[1]]).norm(dim=-1)
    return pairs, (gap < CONTACT + MARGIN).to(positions.dtype)
