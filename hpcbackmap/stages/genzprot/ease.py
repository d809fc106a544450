"""Side chains eased out of what they and their hydrogens overlap: all torsions at once, downhill.

What overlap and turning cost are squares. A step takes every torsion to the bottom of a parabola that lies
above the cost, which therefore falls: the curvature of what several torsions move is shared out among them (De
Pierro, IEEE Trans. Med. Imaging 14, 132, 1995). Beads that are given hold their side chains.

Shapes: F frames, R residues, S slots with hydrogens, n rows (residues of frames), P atoms that torsions move, Q
pairs, h rows that hold beads, M beads of a residue. A place is a slot, counted through frames and residues;
positions are from CA of the residue, nm.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.stages.genzprot.dense_atoms import GivenBeads, Scene
from hpcbackmap.stages.genzprot.hydrogen_slots import SLOTS, with_hydrogens
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.touching import Touching, touching_pairs
from hpcbackmap.stages.genzprot.turning import ends_of_torsions, levels_of_slots, turns

__all__ = ["ease"]

STEPS = 12
WIDTH = math.radians(12.0)
"""A turn by so much costs half a nat."""
SOFTNESS = 0.007
"""An overlap of so much costs half a nat, nm."""
SHORTEST = 1e-6
CA = BACKBONE.index("CA")


class Torsions(NamedTuple):
    """Side chains that turn. residue [n]: counted through frames. start, end: places of both ends of the bond
    of each torsion [n N_CHI]. place [P]: of each atom that moves; move [P]: which of the n N_CHI moves takes
    it. level, row [F R S]: how many torsions move a place, counted from chi 1, and the row of its residue.
    """

    residue: Tensor
    start: Tensor
    end: Tensor
    place: Tensor
    move: Tensor
    level: Tensor
    row: Tensor


class Axes(NamedTuple):
    """Direction and end of the bond of each torsion, [3, n, N_CHI] both."""

    along: Tensor
    end: Tensor


class Held(NamedTuple):
    """Beads that hold rows [h]. places [h, MAX_ATOMS]: of their heavy atoms. shares [h, M, N_CHI, MAX_ATOMS]:
    of the atoms that torsion k moves; whole [h, M, MAX_ATOMS]: of all. target [h, M, 3]; there [h, M].
    """

    row: Tensor
    places: Tensor
    shares: Tensor
    whole: Tensor
    target: Tensor
    there: Tensor
    tolerance: float


def ease(scene: Scene, system: ResidueSystem, moving: Tensor) -> None:
    """Turn side chains of ``scene`` a little, in place; moving: residues that may, bool [R]."""
    atoms = with_hydrogens(scene)
    torsions = _torsions(scene, atoms, moving)
    if not len(torsions.place):
        return
    pairs = touching_pairs(scene, system, atoms, moving)
    held = None if scene.beads is None else _held(scene, scene.beads, torsions)
    centre = atoms[:, :, CA].repeat_interleave(SLOTS, 1).flatten(0, 1).T.contiguous()
    local = atoms.flatten(0, 2).T - centre
    turn = local.new_zeros(len(torsions.residue), N_CHI)
    for _ in range(STEPS):
        axes = _axes(local, torsions)
        slope, curve = _of_overlap(local, centre, pairs, torsions, axes)
        if held is not None:
            _add_of_beads(slope, curve, local, held, axes)
        step = (slope - turn / WIDTH**2) / (curve + 1 / WIDTH**2)
        turn += step
        local[:, torsions.place] = _moved(local, torsions, axes, step)
    heavy = torsions.place[torsions.place % SLOTS < MAX_ATOMS]
    residue = heavy // SLOTS
    there = residue // len(moving), residue % len(moving), heavy % SLOTS
    scene.atoms[there] = (local + centre).index_select(1, heavy).T


def _torsions(scene: Scene, atoms: Tensor, moving: Tensor) -> Torsions:
    (residue,) = torch.nonzero(moving.repeat(len(atoms)), as_tuple=True)
    kind = scene.kind.repeat(len(atoms))[residue]
    level = torch.zeros(atoms.shape[:3], dtype=torch.int64, device=atoms.device).flatten(0, 1)
    level[residue] = levels_of_slots(kind)
    row = torch.zeros_like(level)
    row[residue] = torch.arange(len(residue), device=row.device).unsqueeze(-1)
    level, row = level.flatten(), row.flatten()
    (place,) = torch.nonzero(level > 0, as_tuple=True)
    move = row[place] * N_CHI + level[place] - 1
    start, end = (residue.view(-1, 1, 1) * SLOTS + ends_of_torsions(kind)).flatten(0, 1).unbind(-1)
    return Torsions(residue, start, end, place, move, level, row)


def _axes(local: Tensor, torsions: Torsions) -> Axes:
    start, end = (local.index_select(1, ends) for ends in (torsions.start, torsions.end))
    along = end - start
    along /= along.square().sum(0).sqrt_()
    return Axes(along.unflatten(1, (-1, N_CHI)), end.unflatten(1, (-1, N_CHI)))


def _moved(local: Tensor, torsions: Torsions, axes: Axes, step: Tensor) -> Tensor:
    """Where atoms [3, P] go with turns ``step`` [n, N_CHI]."""
    move = turns(axes.along, axes.end, step).index_select(2, torsions.move)
    x, y, z = local.index_select(1, torsions.place)
    return move[:, 3].addcmul_(move[:, 0], x).addcmul_(move[:, 1], y).addcmul_(move[:, 2], z)


def _of_overlap(
    local: Tensor, centre: Tensor, pairs: Touching, torsions: Torsions, axes: Axes
) -> tuple[Tensor, Tensor]:
    """Slope, downhill, and curvature of what overlap costs [n, N_CHI], nats per rad."""
    gap = torch.stack(
        [x.index_select(0, pairs.first) - x.index_select(0, pairs.second) for x in local + centre]
    )
    if pairs.shift is not None:
        gap += pairs.shift
    squared = gap.square().sum(0)
    (hit,) = torch.nonzero(squared < pairs.touch.square(), as_tuple=True)
    length = squared[hit].sqrt().clamp_min_(SHORTEST)
    normal = gap[:, hit] / length
    depth = (pairs.touch[hit] - length).unsqueeze(-1)
    sides = [
        _pull(local, pairs.first[hit], normal, torsions, axes),
        _pull(local, pairs.second[hit], -normal, torsions, axes),
    ]
    both = sum(pull.abs().sum(-1, keepdim=True) for _, pull in sides)
    slope, curve = torch.zeros_like(axes.end[0]), torch.zeros_like(axes.end[0])
    for row, pull in sides:
        slope.index_add_(0, row, depth * pull)
        curve.index_add_(0, row, both * pull.abs())
    return slope / SOFTNESS**2, curve / SOFTNESS**2


def _pull(
    local: Tensor, place: Tensor, direction: Tensor, torsions: Torsions, axes: Axes
) -> tuple[Tensor, Tensor]:
    """Row of atoms at ``place`` [Q], and how far each torsion takes them along ``direction`` [3, Q]: nm per rad
    [Q, N_CHI], 0 where it does not move them.
    """
    row, level = torsions.row[place], torsions.level[place]
    arm = local.index_select(1, place).unsqueeze(-1) - axes.end.index_select(1, row)
    pull = torch.linalg.cross(axes.along.index_select(1, row), arm, dim=0)
    pull = (pull * direction.unsqueeze(-1)).sum(0)
    return row, pull * (level.unsqueeze(-1) > torch.arange(N_CHI, device=level.device))


def _held(scene: Scene, beads: GivenBeads, torsions: Torsions) -> Held:
    residues = len(scene.kind)
    frame, residue = torsions.residue // residues, torsions.residue % residues
    target = beads.position[frame, residue]
    there = torch.isfinite(target).all(-1)
    (row,) = torch.nonzero(there.any(-1), as_tuple=True)
    residue, target, there = residue[row], target[row].nan_to_num(), there[row]
    whole = beads.shares[residue].to(target)
    turn = torch.arange(N_CHI, device=row.device).unsqueeze(-1)
    moved = levels_of_slots(scene.kind[residue])[:, :MAX_ATOMS].unsqueeze(1) > turn
    places = torsions.residue[row].unsqueeze(-1) * SLOTS
    places = places + torch.arange(MAX_ATOMS, device=row.device)
    target = target - whole.sum(-1, keepdim=True) * scene.atoms[frame[row], residue, CA].unsqueeze(
        1
    )
    shares = whole.unsqueeze(2) * moved.unsqueeze(1)
    return Held(row, places, shares, whole, target, there, beads.tolerance)


def _add_of_beads(slope: Tensor, curve: Tensor, local: Tensor, held: Held, axes: Axes) -> None:
    """Add what beads that are missed cost, as `_of_overlap` has it."""
    atoms = local[:, held.places].permute(1, 2, 0)
    miss = (held.target - held.whole @ atoms) * held.there.unsqueeze(-1)
    along, end = (x[:, held.row].permute(1, 2, 0).unsqueeze(1) for x in axes)
    arm = held.shares @ atoms.unsqueeze(1) - held.shares.sum(-1, keepdim=True) * end
    pull = torch.linalg.cross(along.expand_as(arm), arm) * held.there[..., None, None]
    both = pull.abs().sum(2, keepdim=True)
    slope[held.row] += (pull * miss.unsqueeze(2)).sum((1, 3)) / held.tolerance**2
    curve[held.row] += (pull.abs() * both).sum((1, 3)) / held.tolerance**2
