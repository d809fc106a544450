"""Atoms that a side chain could run into, however its torsions turn.

Shapes: F frames, R residues, n rows (residues of frames), P pairs.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB
from hpcbackmap.stages.genzprot.dense_atoms import Scene
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.geometry import LARGE, pairs_within

__all__ = ["Around", "around", "residue_pairs"]

BOND = 0.127
"""nm; how much farther each bond takes a chain that is stretched out."""
CARBONYL, OXT = BACKBONE.index("O"), MAX_ATOMS - 1


class Around(NamedTuple):
    """Atoms near the rows. row [P]; gap: where an atom is from CB of its row, nm [P, 3]; distance [P]; residue
    and slot [P] of the atom.
    """

    row: Tensor
    gap: Tensor
    distance: Tensor
    residue: Tensor
    slot: Tensor


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


def around(
    scene: Scene, row: Tensor, frame: Tensor, own: Tensor, other: Tensor, reach: Tensor
) -> Around:
    """Atoms of the pairs (frame, own residue, other residue) [P] within ``reach`` nm of CB of the own [n].

    row [P]: of which row the own residue is. Of itself only O and OXT count.
    """
    gap = scene.atoms[frame, other] - scene.atoms[frame, own, CB].unsqueeze(1)
    if scene.box is not None:
        gap = gap + scene.box.shift(gap, frame)
    squared = gap.square().sum(-1)
    near = squared < reach.square()[row].unsqueeze(-1)
    near &= scene.there[other]
    alone = torch.zeros(MAX_ATOMS, dtype=torch.bool, device=near.device)
    alone[[CARBONYL, OXT]] = True
    near &= (own != other).unsqueeze(-1) | alone
    pair, slot = torch.nonzero(near, as_tuple=True)
    return Around(row[pair], gap[pair, slot], squared[pair, slot].sqrt(), other[pair], slot)


def _joined(parts: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    one, two, three = (torch.cat(part) for part in zip(*parts, strict=True))
    return one, two, three


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
