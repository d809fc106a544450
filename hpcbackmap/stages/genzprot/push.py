"""Side chains of a member pushed out of what they overlap: a little, in their own rotamer or another one.

A drawn side chain that overlaps other atoms tries torsions near those it has, and other rotamers of chi 1 and
chi 2. The cheapest stays: overlap that is left, against how far the torsions went and, where beads are
given, these are missed. Unlike in a redraw, all atoms count, however far the C-alpha atoms are apart, and
the residue's own carbonyl.

Shapes: F frames, R residues, A heavy atoms, n rows (residues of frames), C candidates, E atoms around a row.
"""

import math
from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS
from hpcbackmap.protein.side_chain import CB, N_CHI, SIDE, chi_of
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.clashes import radii_of_slots
from hpcbackmap.stages.genzprot.dense_atoms import (
    AWAY,
    Scene,
    add_side_chains,
    flat,
    side_chain_rows,
)
from hpcbackmap.stages.genzprot.images import pairs_of_images
from hpcbackmap.stages.genzprot.restraints import misfit
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.geometry import pairs_within

__all__ = ["push"]

SWEEPS = 2
"""In each, residues of even number move, then those of odd: neighbours do not evade each other."""
NEAR, WIDTH = 16, math.radians(12.0)
"""Candidates near the torsions that are there, and the standard deviation of their torsions, rad."""
TURNS = (0.0, 120.0, 240.0)
"""Degrees by which chi 1 and chi 2 of the other candidates are turned."""
TURN_COST = 6.0
"""Nats of leaving a rotamer that the stage drew."""
SOFTNESS, HARD = 0.04, 0.03
"""An overlap of x nm costs x / SOFTNESS (1 + x / HARD) nats: hydrogens that touch a little, atoms much."""
RADIUS = {"C": 0.175, "N": 0.142, "O": 0.132, "S": 0.180}
"""nm, with their hydrogens; partners of a hydrogen bond do not touch."""
FARTHEST = 2 * max(RADIUS.values())
AROUND = 160
"""Nearest atoms that a side chain can run into."""
ROWS = 64
"""Residues compared at a time, which bounds the memory."""
CARBONYL, OXT = BACKBONE.index("O"), MAX_ATOMS - 1


def push(scene: Scene, system: ResidueSystem, moving: Tensor) -> None:
    """Move side chains of ``scene`` that overlap other atoms, in place; moving: residues that may, bool [R]."""
    radius = _radii(scene.atoms.device)[system.residue_type]
    for _ in range(SWEEPS):
        pressed = _pressed(scene, radius, system) & moving
        for parity in (0, 1):
            rows = torch.nonzero(pressed & (system.place % 2 == parity), as_tuple=True)
            parts = zip(*(x.split(ROWS) for x in rows), strict=True)
            side = [_best(scene, radius, system, *part) for part in parts]
            if side:  # at once: who sees whom moved must not hang on the frames beside
                add_side_chains(scene, torch.cat(side), *rows)


def _pressed(scene: Scene, radius: Tensor, system: ResidueSystem) -> Tensor:
    """Residues whose torsion-moved atoms overlap others, bool [F, R]; radius [R, MAX_ATOMS], nm."""
    residue, slot = system.bead_of, system.slot
    reach = radius[residue, slot]
    side = (slot >= SIDE.start) & (slot < SIDE.stop)
    found = torch.zeros(scene.atoms.shape[:2], dtype=torch.bool, device=slot.device)
    for frame, (row, points) in enumerate(zip(found, flat(scene.atoms, system), strict=True)):
        first, second, distance = _pairs(points, scene, system, frame)
        for own, other in ((first, second), (second, first)):
            hit = _counts(residue, slot, own, other) & side[own]
            hit &= (distance < reach[own] + reach[other]) & ~_bridge(reach[own], reach[other])
            row[residue[own[hit]]] = True
    return found


def _pairs(
    points: Tensor, scene: Scene, system: ResidueSystem, frame: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of the atoms ``points`` [A, 3] of a frame that are near, in any image, and their distances."""
    if scene.box is None or not scene.box.cell[frame].any():
        first, second = pairs_within(points, system.fine_system, FARTHEST)
        return first, second, (points[first] - points[second]).norm(dim=-1)
    first, second = pairs_of_images(points, scene.box.cell[frame], FARTHEST)
    gap = points[first] - points[second]
    rows = torch.full_like(first, frame)
    return first, second, (gap + scene.box.shift(gap, rows)).norm(dim=-1)


def _counts(residue: Tensor, slot: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Atoms of other residues count, and the residue's own O and OXT."""
    return (residue[own] != residue[other]) | (slot[other] == CARBONYL) | (slot[other] == OXT)


def _bridge(reach: Tensor, reached: Tensor) -> Tensor:
    """Two sulphur atoms, which may be a disulphide."""
    return (reach > RADIUS["C"]) & (reached > RADIUS["C"])


def _best(
    scene: Scene, radius: Tensor, system: ResidueSystem, frame: Tensor, residue: Tensor
) -> Tensor:
    """The cheapest candidate of rows (frame, residue) [n]: atoms [n, MAX_ATOMS, 3]."""
    leans, nats = (table.to(scene.atoms) for table in _candidates())
    count = len(leans)
    there = system.torsion_mask[residue, Role.CHI1 : Role.CHI1 + N_CHI]
    chi = chi_of(scene.atoms[frame, residue], scene.kind[residue]).unsqueeze(1) + leans
    rows = (x.repeat_interleave(count) for x in (frame, residue))
    side = side_chain_rows(scene, chi.flatten(0, 1), *rows).unflatten(0, (-1, count))
    cost = (nats * there.unsqueeze(1)).sum(-1)
    cost = cost + _overlap(side, scene, radius, system, frame, residue)
    if scene.beads is not None:
        cost = cost + misfit(side, scene, frame, residue)
    return side[torch.arange(len(side), device=side.device), cost.argmin(1)]


def _overlap(
    side: Tensor,
    scene: Scene,
    radius: Tensor,
    system: ResidueSystem,
    frame: Tensor,
    residue: Tensor,
) -> Tensor:
    """Nats [n, C] for how far candidates ``side`` [n, C, MAX_ATOMS, 3] reach into what is around them."""
    atoms = flat(scene.atoms, system)[frame]
    centre = scene.atoms[frame, residue, CB].unsqueeze(1)
    if scene.box is not None:
        atoms = atoms + scene.box.shift(atoms - centre, frame)
    squared = (atoms - centre).square().sum(-1)
    own = system.bead_of == residue.unsqueeze(1)
    alien = system.fine_system != system.coarse_system[residue].unsqueeze(1)
    kept = (system.slot == CARBONYL) | (system.slot == OXT)
    squared = squared.masked_fill((own & ~kept) | alien, torch.inf)
    near = squared.topk(min(AROUND, squared.shape[1]), dim=-1, largest=False)
    others = atoms.gather(1, near.indices.unsqueeze(-1).expand(-1, -1, 3))
    others = others.masked_fill(near.values.isinf().unsqueeze(-1), AWAY)
    row, slot = torch.nonzero(scene.there[residue, SIDE], as_tuple=True)
    slot = slot + SIDE.start
    mine, theirs = side[row, :, slot].unsqueeze(2), others[row].unsqueeze(1)
    squared = (mine[..., 0] - theirs[..., 0]).square_()
    for k in (1, 2):
        gap = mine[..., k] - theirs[..., k]
        squared.addcmul_(gap, gap)
    which, candidate, other = torch.nonzero(squared < FARTHEST**2, as_tuple=True)
    reach = radius[residue[row], slot][which]
    reached = radius[system.bead_of, system.slot][near.indices[row[which], other]]
    depth = (reach + reached - squared[which, candidate, other].sqrt()).clamp_min(0)
    depth = depth.masked_fill(_bridge(reach, reached), 0.0)
    total = side.new_zeros(side.shape[0] * side.shape[1])
    nats = depth / SOFTNESS * (1 + depth / HARD)
    return total.index_add_(0, row[which] * side.shape[1] + candidate, nats).view(side.shape[:2])


@cache
def _radii(device: torch.device) -> Tensor:
    """Of each slot of each residue type [types, MAX_ATOMS], nm."""
    return radii_of_slots(RADIUS).to(device)


@cache
def _candidates() -> tuple[Tensor, Tensor]:
    """What candidates add to the torsions, rad, and what each chi of it costs, nats: [C, N_CHI] both.

    The first changes nothing; the next are evenly spread normal deviates; the rest are other rotamers.
    """
    even = torch.quasirandom.SobolEngine(N_CHI).draw(NEAR)
    normal = torch.special.ndtri(even.clamp(0.01, 0.99))
    normal[0] = 0.0
    turns = [(a, b, 0.0, 0.0) for a in TURNS for b in TURNS if a or b]
    turned = torch.deg2rad(torch.tensor(turns))
    cost = torch.zeros_like(turned)
    cost[:, 0] = TURN_COST
    return torch.cat([WIDTH * normal, turned]), torch.cat([0.5 * normal.square(), cost])
