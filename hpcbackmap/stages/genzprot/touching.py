"""Pairs of atoms, hydrogens included, that torsions of side chains and planes may bring to touch.

Surfaces touch where `metrics/clashscore.py` counts overlap, less what is allowed; atoms at most three bonds
apart, four with a hydrogen, do not, nor those that every torsion moves alike. Cysteines may be bridged, so
that theirs do not touch one another's.

Shapes: F frames, R residues, S slots with hydrogens, Q pairs.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUES
from hpcbackmap.protein.surfaces import (
    HYDROGEN,
    HYDROGEN_BOND,
    POLAR_OR_AROMATIC,
    RADII,
    in_ring,
    radius_of,
)
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene
from hpcbackmap.stages.genzprot.hydrogen_slots import AMIDE, SLOTS, hydrogens_of_type
from hpcbackmap.stages.genzprot.images import pairs_of_images
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.turning import levels_of_slots
from hpcbackmap.stages.layers.geometry import pairs_within

__all__ = ["Touching", "touching_pairs"]

ALLOWED = 0.025
"""nm; what surfaces may overlap, in a hydrogen bond beside what that may."""
MARGIN = 0.06
"""nm; pairs that are so far from touching are looked at, too."""
FARTHEST = 2 * RADII["C"] - ALLOWED
"""nm; sulphur, which is larger, is seen from a little less far."""
NEAR, NEAR_OF_HYDROGEN = 3, 4
"""Bonds between atoms that do not touch."""
APART = 9


class Touching(NamedTuple):
    """Pairs of slots of all frames, counted through [Q]; distance at which they touch, nm [Q]; what makes
    the first less the second that of the nearest images, nm [3, Q], or None.
    """

    first: Tensor
    second: Tensor
    touch: Tensor
    shift: Tensor | None


def touching_pairs(scene: Scene, system: ResidueSystem, atoms: Tensor, moves: Tensor) -> Touching:
    """Of atoms [F, R, S, 3], one of which ``moves``: slots that may, bool [R S]."""
    found: list[tuple[Tensor, ...]] = []
    for frame, points in enumerate(atoms.flatten(1, 2)):
        first, second, touch, shift = _near(scene, system, points, moves, frame)
        kept = torch.nonzero(_free_of_bonds(scene, first, second)).squeeze(-1)
        kept = kept[(first * len(points) + second)[kept].argsort()]  # sums in one order everywhere
        start = frame * len(points)
        found.append((first[kept] + start, second[kept] + start, touch[kept], shift[:, kept]))
    first, second, touch, shift = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    return Touching(first, second, touch, None if scene.box is None else shift)


def _near(
    scene: Scene, system: ResidueSystem, points: Tensor, moves: Tensor, frame: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Slots of one frame that are near others, one of which ``moves`` [R S], the one of the lower number first;
    the distance at which they touch, and the shift [3, Q] of what is between them.
    """
    (there,) = torch.nonzero(points[:, 0] < AWAY / 2, as_tuple=True)
    periodic = scene.box is not None and bool(scene.box.cell[frame].any())
    if scene.box is not None and periodic:
        first, second = pairs_of_images(points[there], scene.box.cell[frame], FARTHEST + MARGIN)
    else:
        group = system.coarse_system[there // SLOTS]
        first, second = pairs_within(points[there], group, FARTHEST + MARGIN)
    first, second = (
        there.index_select(0, end(first, second)) for end in (torch.minimum, torch.maximum)
    )
    gap = [x.index_select(0, first) - x.index_select(0, second) for x in points.T.contiguous()]
    shift = points.new_zeros(3, len(first))
    if scene.box is not None and periodic:
        shift = scene.box.shift(torch.stack(gap, -1), torch.full_like(first, frame)).T
        gap = [x + by for x, by in zip(gap, shift, strict=True)]
    table = _touch(points.device)
    kind = (SLOTS * scene.kind.unsqueeze(-1) + torch.arange(SLOTS, device=there.device)).flatten()
    rows, columns = (kind.index_select(0, places) for places in (first, second))
    touch = table.flatten().index_select(0, rows * len(table) + columns).to(points)
    squared = gap[0].square().addcmul_(gap[1], gap[1]).addcmul_(gap[2], gap[2])
    some = squared < (touch + MARGIN).square()
    some &= moves.index_select(0, first) | moves.index_select(0, second)
    (some,) = torch.nonzero(some, as_tuple=True)
    first, second, touch = (x.index_select(0, some) for x in (first, second, touch))
    return first, second, touch, shift[:, some]


def _free_of_bonds(scene: Scene, first: Tensor, second: Tensor) -> Tensor:
    """Whether enough bonds lie between slots [Q] of a frame, residue of the first not behind the second's."""
    bonds, alike = _bonds(first.device)
    residue, other = first // SLOTS, second // SLOTS
    free = torch.ones_like(first, dtype=torch.bool)
    after = scene.after.index_select(0, residue)
    (some,) = torch.nonzero((residue == other) | (after == other), as_tuple=True)
    first, second, residue, other = (
        x.index_select(0, some) for x in (first, second, residue, other)
    )
    own, slot, other_slot = residue == other, first % SLOTS, second % SLOTS
    kind, next_kind = scene.kind[residue], scene.kind[other]
    across = bonds[kind, slot, BACKBONE.index("C")] + 1 + bonds[next_kind, 0, other_slot]
    count = torch.where(own, bonds[kind, slot, other_slot], across)
    light = (slot >= MAX_ATOMS) | (other_slot >= MAX_ATOMS)
    limit = torch.where(light, NEAR_OF_HYDROGEN, NEAR)
    free[some] = (count > limit) & ~(own & alike[kind, slot, other_slot])
    return free


@cache
def _bonds(device: torch.device) -> tuple[Tensor, Tensor]:
    """Bonds between slots of a residue type, `APART` if there are more or there is no way [types, S, S]; pairs
    that all torsions move alike [types, S, S].
    """
    bonds = torch.full((len(RESIDUES), SLOTS, SLOTS), APART)
    for table, (name, template) in zip(bonds, RESIDUES.items(), strict=True):
        slots = {atom: slot for slot, atom in enumerate(template.atoms)} | {"OXT": MAX_ATOMS - 1}
        pairs = [(slots[a], slots[b]) for a, b in (*template.bonds, ("C", "OXT"))]
        pairs += [(slots[h.atoms[0]], slot) for slot, h in hydrogens_of_type(name).items()]
        table.fill_diagonal_(0)
        for one, two in pairs:
            table[one, two] = table[two, one] = 1
        for between in range(SLOTS):
            table.copy_(torch.minimum(table, table[:, [between]] + table[[between]]))
    level = levels_of_slots(torch.arange(len(RESIDUES)))
    return bonds.to(device), (level.unsqueeze(1) == level.unsqueeze(2)).to(device)


@cache
def _touch(device: torch.device) -> Tensor:
    """Distance at which atoms of slots of residue types touch [types * S, types * S], nm."""
    radius = torch.zeros(len(RESIDUES), SLOTS)
    gives, takes, bridge = (torch.zeros(radius.shape, dtype=torch.bool) for _ in range(3))
    for kind, (name, template) in enumerate(RESIDUES.items()):
        for slot, atom in (*enumerate(template.atoms), (MAX_ATOMS - 1, "OXT")):
            radius[kind, slot] = radius_of(name, atom)
            takes[kind, slot] = atom[0] == "O" or (name, atom) == ("HIS", "ND1")
            bridge[kind, slot] = name == "CYS" and atom in ("CB", "SG")
        for slot, hydrogen in hydrogens_of_type(name).items():
            parent = hydrogen.atoms[0]
            gives[kind, slot] = parent[0] == "N"
            ring = in_ring(name, parent)
            radius[kind, slot] = POLAR_OR_AROMATIC if ring or parent[0] == "N" else HYDROGEN
            bridge[kind, slot] = name == "CYS" and slot != AMIDE
    flat, gives, takes, bridge = (x.flatten() for x in (radius, gives, takes, bridge))
    bond = (gives.unsqueeze(1) & takes) | (takes.unsqueeze(1) & gives)
    touch = flat.unsqueeze(1) + flat - ALLOWED - HYDROGEN_BOND * bond
    return touch.masked_fill(bridge.unsqueeze(1) & bridge, 0.0).to(device)
