"""Side chains that run into other residues."""

import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import SIDE
from hpcbackmap.stages.scene import Scene

__all__ = ["overlaps"]

RADIUS = {"C": 0.140, "N": 0.120, "O": 0.120, "S": 0.155}
"""nm; two atoms closer than the sum of theirs are in contact (below hydrogen-bond and packing distances)."""
FARTHEST = 2 * max(RADIUS.values())
AWAY = 1000.0
"""Where atoms that do not exist are put, nm."""
ROWS = 512
"""Residues compared at a time, which bounds the memory."""


def overlaps(side: Tensor, scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """How far the side chains of rows (frame, residue) [n] reach into other residues: nm, summed, [n].

    side: dense atoms of the rows [n, MAX_ATOMS, 3]. Only atoms that torsions move count; sulphur pairs are
    left out, they may be disulphides.
    """
    radius = _radii(side.device)
    total = side.new_zeros(len(side))
    for first in range(0, len(side), ROWS):
        f, r = frame[first : first + ROWS], residue[first : first + ROWS]
        near = scene.near[f, r]
        centre = scene.atoms[f, r, 1].unsqueeze(1)
        own = side[first : first + ROWS, SIDE] - centre
        own = own.masked_fill(~scene.there[r][:, SIDE, None], AWAY)
        others = (scene.atoms[f.unsqueeze(1), near] - centre.unsqueeze(1)).flatten(1, 2)
        exists = (scene.there[near] & scene.valid[f, r].unsqueeze(-1)).flatten(1)
        others = others.masked_fill(~exists.unsqueeze(-1), -AWAY)
        squared = torch.baddbmm(
            others.square().sum(-1).unsqueeze(1), own, others.transpose(1, 2), alpha=-2
        )
        squared += own.square().sum(-1, keepdim=True)
        row, mine, other = torch.nonzero(squared < FARTHEST**2, as_tuple=True)
        reach = radius[scene.kind[r[row]], mine + SIDE.start]
        reached = radius[scene.kind[near]].flatten(1)[row, other]
        gap = (own[row, mine] - others[row, other]).norm(dim=-1)
        depth = (reach + reached - gap).clamp_min(0)
        bridge = (reach > RADIUS["C"]) & (reached > RADIUS["C"])
        total.index_add_(0, first + row, depth.masked_fill(bridge, 0.0).to(total))
    return total


def _radii(device: torch.device) -> Tensor:
    """Contact radius of each slot of each residue type [types, MAX_ATOMS], nm."""
    table = torch.full((len(RESIDUES), MAX_ATOMS), RADIUS["O"])
    for kind, template in enumerate(RESIDUES.values()):
        for slot, name in enumerate(template.atoms):
            table[kind, slot] = RADIUS[name[0]]
    return table.to(device)
