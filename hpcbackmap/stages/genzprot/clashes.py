"""Side chains that run into other residues."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import SIDE
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene, neighbour_atoms, squared_distances

__all__ = ["FARTHEST", "RADIUS", "contact_radii", "overlaps", "radii_of_slots"]

RADIUS = {"C": 0.140, "N": 0.120, "O": 0.120, "S": 0.155}
"""nm; two atoms closer than the sum of theirs are in contact (below hydrogen-bond and packing distances)."""
FARTHEST = 2 * max(RADIUS.values())
ROWS = 512
"""Residues compared at a time, which bounds the memory."""


def overlaps(side: Tensor, scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """How far the side chains of rows (frame, residue) [n] reach into other residues: nm, summed, [n].

    side: dense atoms of the rows [n, MAX_ATOMS, 3]. Only atoms that torsions move count; sulphur pairs are
    left out, they may be disulphides.
    """
    rows = zip(*(x.split(ROWS) for x in (side[:, SIDE], frame, residue)), strict=True)
    return torch.cat([_overlaps(own, scene, f, r) for own, f, r in rows])


def _overlaps(own: Tensor, scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    there = scene.there[residue, SIDE]
    others = neighbour_atoms(scene, frame, residue)
    row, other = torch.nonzero(_within_reach(own, there, others), as_tuple=True)
    mine = own.masked_fill(~there.unsqueeze(-1), -AWAY).index_select(0, row)
    squared = squared_distances(mine, others[row, other])
    pair, slot = torch.nonzero(squared < FARTHEST**2, as_tuple=True)
    row, other = row[pair], other[pair]
    radius = contact_radii(own.device)
    reach = radius[scene.kind[residue[row]], slot + SIDE.start]
    theirs = scene.near[frame[row], residue[row], other // MAX_ATOMS]
    reached = radius[scene.kind[theirs], other % MAX_ATOMS]
    bridge = (reach > RADIUS["C"]) & (reached > RADIUS["C"])
    depth = (reach + reached - squared[pair, slot].sqrt()).clamp_min(0).masked_fill(bridge, 0.0)
    return own.new_zeros(len(own)).index_add_(0, row, depth.to(own))


def _within_reach(own: Tensor, there: Tensor, others: Tensor) -> Tensor:
    """Which of ``others`` [n, m, 3] come near the sphere about the atoms ``there`` of each row: [n, m]."""
    weight = there.unsqueeze(-1).to(own)
    middle = (own * weight).sum(1) / weight.sum(1).clamp_min(1)
    extent = squared_distances(own, middle).masked_fill(~there, 0.0).amax(-1, keepdim=True).sqrt()
    return squared_distances(others, middle) < (extent + FARTHEST).square()


@cache
def contact_radii(device: torch.device) -> Tensor:
    """Contact radius of each slot of each residue type [types, MAX_ATOMS], nm."""
    return radii_of_slots(RADIUS).to(device)


def radii_of_slots(radius: Mapping[str, float]) -> Tensor:
    """The radius of its element for each slot of each residue type, [types, MAX_ATOMS]."""
    table = torch.full((len(RESIDUES), MAX_ATOMS), radius["O"])
    for kind, template in enumerate(RESIDUES.values()):
        for slot, name in enumerate(template.atoms):
            table[kind, slot] = radius[name[0]]
    return table
