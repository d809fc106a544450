"""Atoms that a side chain could run into, however its torsions turn.

Shapes: F frames, R residues, n rows (residues of frames), P pairs of residues or atoms that torsions move, L
atoms near rows, S slots of side chains.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB, SIDE
from hpcbackmap.stages.genzprot.dense_atoms import Scene
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.turning import reach_of_slots
from hpcbackmap.stages.layers.geometry import LARGE, pairs_within

__all__ = [
    "NITROGEN",
    "Movable",
    "Near",
    "Surroundings",
    "movable_of",
    "own_slots",
    "residue_pairs",
    "surroundings_of",
]

BOND = 0.127
"""nm; how much farther each bond takes a chain that is stretched out."""
NOWHERE = 1e3
NITROGEN = BACKBONE.index("N")
OWN = (NITROGEN, BACKBONE.index("O"), MAX_ATOMS - 1)
"""Slots of atoms that a side chain can meet in its own residue: N, O and OXT."""


class Movable(NamedTuple):
    """Side chains that may move. frame, residue, kind [n]. own, slot [P]: row and slot of each atom that
    torsions move; number: which of these each slot of ``SIDE`` is [n, S]. reach: how far from CB torsions can
    take it, nm [n, S], far below 0 where there is none.
    """

    frame: Tensor
    residue: Tensor
    kind: Tensor
    own: Tensor
    slot: Tensor
    number: Tensor
    reach: Tensor

    def atoms(self, scene: Scene) -> Tensor:
        """Atoms of the rows from CB, nm [n, MAX_ATOMS, 3]."""
        atoms = scene.atoms[self.frame, self.residue]
        return atoms - atoms[:, CB].unsqueeze(1)


class Near(NamedTuple):
    """Atoms near the rows. row [L]; gap: where an atom is from CB of its row, nm [3, L]; distance [L]; residue
    and slot [L] of the atom.
    """

    row: Tensor
    gap: Tensor
    distance: Tensor
    residue: Tensor
    slot: Tensor


class Surroundings(NamedTuple):
    """Residues near the rows, however torsions turn. row, residue [P]; place: of frame and residue together.
    itself: pairs of a row with its own residue.
    """

    row: Tensor
    residue: Tensor
    place: Tensor
    itself: Tensor
    limit: Tensor
    """Squared distance from CB of each row that atoms can be met at, nm^2 [n]."""

    def atoms(self, scene: Scene, movable: Movable) -> Near:
        """Atoms that the rows can meet; of their own residue only `OWN`."""
        xyz = scene.atoms.flatten(0, 1).permute(2, 0, 1).contiguous()
        centre = scene.atoms[movable.frame, movable.residue, CB].T[:, self.row].unsqueeze(-1)
        gap = [
            part.index_select(0, self.place).sub_(c) for part, c in zip(xyz, centre, strict=True)
        ]
        if scene.box is not None:
            stacked = torch.stack(gap, -1)
            shift = scene.box.shift(stacked, movable.frame[self.row])
            gap = list((stacked + shift).unbind(-1))
        squared = gap[0] * gap[0]
        for part in gap[1:]:
            squared.addcmul_(part, part)
        near = squared < self.limit[self.row].unsqueeze(-1)
        near[self.itself] &= own_slots(near.device)
        found = torch.nonzero(near.flatten()).squeeze(-1)
        pair, slot = found // MAX_ATOMS, found % MAX_ATOMS
        chosen = torch.stack([part.flatten().index_select(0, found) for part in gap])
        distance = squared.flatten().index_select(0, found).sqrt_()
        return Near(self.row[pair], chosen, distance, self.residue[pair], slot)


def movable_of(scene: Scene, moving: Tensor) -> Movable:
    """Rows of the residues that move, bool [F, R]."""
    frame, residue = torch.nonzero(moving, as_tuple=True)
    kind, there = scene.kind[residue], scene.there[residue, SIDE]
    own, slot = torch.nonzero(there, as_tuple=True)
    number = torch.zeros_like(there, dtype=torch.int64)
    number[own, slot] = torch.arange(len(own), device=own.device)
    atoms = scene.atoms[frame, residue]
    reach = reach_of_slots(atoms - atoms[:, CB].unsqueeze(1), kind)[:, SIDE]
    reach = reach.masked_fill_(~there, -NOWHERE)
    return Movable(frame, residue, kind, own, slot + SIDE.start, number, reach)


def surroundings_of(
    scene: Scene, system: ResidueSystem, movable: Movable, moving: Tensor, touch: float
) -> Surroundings:
    """Residues whose atoms the rows of ``moving`` [F, R] may come within ``touch`` nm of."""
    frame, own, other = residue_pairs(scene, system, moving, touch)
    number = torch.zeros(moving.shape, dtype=torch.int64, device=moving.device)
    number[movable.frame, movable.residue] = torch.arange(len(movable.frame), device=number.device)
    row = number[frame, own]
    reach = movable.reach.amax(-1) + touch
    extent = _extents(moving.device)[system.residue_type].to(reach)
    gap = scene.atoms[frame, other, 1] - scene.atoms[frame, own, CB]
    if scene.box is not None:
        gap = gap + scene.box.shift(gap, frame)
    kept = gap.square().sum(-1) < (reach[row] + extent[other]).square()
    row, frame, other, own = row[kept], frame[kept], other[kept], own[kept]
    itself = torch.nonzero(other == own).squeeze(-1)
    return Surroundings(row, other, frame * moving.shape[1] + other, itself, reach.square())


def residue_pairs(
    scene: Scene, system: ResidueSystem, moving: Tensor, touch: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Frame, residue that moves and residue of the same molecule whose atoms it can come within ``touch`` of.

    By C-alpha distances (nm) alone, itself included, in order of frame and residue: three times int64 [P].
    moving: bool [F, R].
    """
    extent = _extents(moving.device)[system.residue_type]
    if scene.box is None and moving.shape[1] > LARGE:
        return _pairs_by_tree(scene, system, moving, extent, touch)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for frame, points in enumerate(scene.atoms[:, :, 1]):
        (own,) = torch.nonzero(moving[frame], as_tuple=True)
        gap = points - points[own].unsqueeze(1)
        if scene.box is not None:
            gap = gap + scene.box.shift(gap, torch.full_like(own, frame))
        reach = extent[own].unsqueeze(-1) + (extent + touch)
        near = gap.square().sum(-1) < reach.square()
        near &= system.coarse_system == system.coarse_system[own].unsqueeze(-1)
        first, second = torch.nonzero(near, as_tuple=True)
        found.append((torch.full_like(first, frame), own[first], second))
    return _joined(found)


def _pairs_by_tree(
    scene: Scene, system: ResidueSystem, moving: Tensor, extent: Tensor, touch: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`residue_pairs` of long molecules without a box, in n log n."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    itself = torch.arange(moving.shape[1], device=moving.device)
    for frame, points in enumerate(scene.atoms[:, :, 1]):
        one, two = pairs_within(points, system.coarse_system, 2 * float(extent.max()) + touch)
        first, second = torch.cat([one, two, itself]), torch.cat([two, one, itself])
        reach = extent[first] + extent[second] + touch
        near = (points[first] - points[second]).square().sum(-1) < reach.square()
        near &= moving[frame, first]
        first, second = first[near], second[near]
        order = (first * moving.shape[1] + second).argsort()
        found.append((torch.full_like(first, frame), first[order], second[order]))
    return _joined(found)


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (torch.cat(part) for part in zip(*parts, strict=True))
    return one, two, three


@cache
def own_slots(device: torch.device) -> Tensor:
    """Whether a slot is one of `OWN`, bool [MAX_ATOMS]."""
    slots = torch.zeros(MAX_ATOMS, dtype=torch.bool)
    slots[list(OWN)] = True
    return slots.to(device)


@cache
def _extents(device: torch.device) -> Tensor:
    """How far from CA the atoms of a residue type can be, nm [types]; O and OXT included."""
    found = []
    for template in RESIDUES.values():
        bonds = {"CA": 0, "N": 1, "C": 1, "O": 2}
        for atom in template.placements:
            bonds[atom.atom] = bonds[atom.parent] + 1
        found.append(0.03 + BOND * max(bonds.values()))
    return torch.tensor(found).to(device)
