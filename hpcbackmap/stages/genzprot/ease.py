"""Side chains and peptide planes eased out of what they and their hydrogens overlap: all at once, downhill.

What overlap, turning and the angle N-CA-C cost are squares. A step takes every torsion and plane to the bottom
of a parabola that lies above the cost, which therefore falls: the curvature of what several of them move is
shared out among them (De Pierro, IEEE Trans. Med. Imaging 14, 132, 1995). Beads that are given hold their side
chains.

Shapes: F frames, R residues, S slots with hydrogens, n rows (residues of frames), J joints of a row
(`joints.JOINTS`), Q pairs, h rows that hold beads, M beads of a residue. A place is a slot, counted through
frames and residues; positions are from CA of the residue, nm.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.stages.genzprot.dense_atoms import GivenBeads, Scene
from hpcbackmap.stages.genzprot.hydrogen_slots import SLOTS, with_hydrogens
from hpcbackmap.stages.genzprot.joints import (
    C_AHEAD,
    FIXED,
    N_BEHIND,
    Joints,
    joints_of,
    moved,
    moved_by,
    screws,
)
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.touching import Touching, touching_pairs

__all__ = ["ease"]

STEPS = (1.5,) * 7 + (1.0,)
"""How many times as far as the bottom of its parabola each goes; below 2 the cost still falls."""
WIDTHS = tuple(math.radians(turn) for turn in (12.0, 12.0, 12.0, 12.0, 5.0))
"""A turn by so much costs half a nat, of torsions and of the plane ahead."""
FARTHEST = math.radians(15.0)
"""Planes turn no farther."""
SOFTNESS = 0.007
"""An overlap of so much costs half a nat, nm."""
ANGLE, ANGLE_SPREAD = math.radians(111.0), 0.006
"""N-CA-C where it costs nothing; half a nat is what N and C cost that are so much nearer or farther, nm."""
SHORTEST = 1e-6
N, CA, C = (BACKBONE.index(name) for name in ("N", "CA", "C"))


class Held(NamedTuple):
    """Beads that hold rows [h]. places [h, MAX_ATOMS]: of their heavy atoms. shares [h, M, J, MAX_ATOMS]: of
    the atoms that each joint moves; whole [h, M, MAX_ATOMS]: of all. target [h, M, 3]; there [h, M].
    """

    row: Tensor
    places: Tensor
    shares: Tensor
    whole: Tensor
    target: Tensor
    there: Tensor
    tolerance: float


def ease(scene: Scene, system: ResidueSystem, moving: Tensor, planes: Tensor) -> None:
    """Turn side chains and planes of ``scene`` a little, in place. moving: residues whose side chains may turn;
    planes: those of which the plane ahead may, bool [R] both.
    """
    atoms = with_hydrogens(scene)
    joints = joints_of(scene, atoms, moving, planes)
    if not len(joints.place):
        return
    moves = joints.part[: len(moving) * SLOTS] != FIXED
    pairs = touching_pairs(scene, system, atoms, moves)
    held = None if scene.beads is None else _held(scene, scene.beads, joints)
    centre = atoms[:, :, CA].repeat_interleave(SLOTS, 1).flatten(0, 1).T.contiguous()
    local = atoms.flatten(0, 2).T - centre
    width = local.new_tensor(WIDTHS)
    limit = local.new_tensor([math.inf] * N_CHI + [FARTHEST])
    turn = local.new_zeros(len(joints.before), N_CHI + 1)
    for boldness in STEPS:
        along, moment = screws(local, joints)
        slope, curve = _of_overlap(local, centre, pairs, joints, torch.cat([along, moment]))
        _add_of_angles(slope, curve, local, along)
        if held is not None:
            _add_of_beads(slope, curve, local, held, along, moment)
        slope, curve = joints.of_each(slope), joints.of_each(curve)
        step = boldness * (slope - turn / width**2) / (curve + 1 / width**2)
        goal = torch.maximum(torch.minimum(turn + step, limit), -limit)
        goals = moved(local, joints, along, joints.of_all(goal - turn))
        local.index_copy_(1, joints.place, goals)
        turn = goal
    heavy = joints.place[joints.place % SLOTS < MAX_ATOMS]
    scene.atoms.flatten(0, 1)[heavy // SLOTS, heavy % SLOTS] = (local + centre)[:, heavy].T


def _of_overlap(
    local: Tensor, centre: Tensor, pairs: Touching, joints: Joints, screw: Tensor
) -> tuple[Tensor, Tensor]:
    """Slope, downhill, and curvature of what overlap costs [n, J], nats per rad; screw [6, n, J]."""
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
        _pull(local, pairs.first[hit], normal, joints, screw),
        _pull(local, pairs.second[hit], -normal, joints, screw),
    ]
    both = sum(pull.abs().sum(-1, keepdim=True) for _, pull in sides)
    slope, curve = torch.zeros_like(screw[0]), torch.zeros_like(screw[0])
    for row, pull in sides:
        slope.index_add_(0, row, depth * pull)
        curve.index_add_(0, row, both * pull.abs())
    return slope / SOFTNESS**2, curve / SOFTNESS**2


def _pull(
    local: Tensor, place: Tensor, direction: Tensor, joints: Joints, screw: Tensor
) -> tuple[Tensor, Tensor]:
    """Row of atoms at ``place`` [Q], and how far each joint takes them along ``direction`` [3, Q]: nm per rad
    [Q, J], 0 where it does not move them.
    """
    row = place // SLOTS
    lever = torch.linalg.cross(local.index_select(1, place), direction, dim=0)
    pull = screw[0].index_select(0, row) * lever[0].unsqueeze(-1)
    for motion, by in zip(screw[1:], (*lever[1:], *direction), strict=True):
        pull.addcmul_(motion.index_select(0, row), by.unsqueeze(-1))
    return row, pull * moved_by(place.device)[joints.part[place]]


def _add_of_angles(slope: Tensor, curve: Tensor, local: Tensor, along: Tensor) -> None:
    """Add what N costs that is nearer to C of its residue, or farther, than at `ANGLE`."""
    n, c = local[:, N::SLOTS], local[:, C::SLOTS]
    gap = n - c
    length = gap.square().sum(0).sqrt().clamp_min(SHORTEST)
    bonds = n.square().sum(0), c.square().sum(0)
    wanted = (bonds[0] + bonds[1] - 2 * math.cos(ANGLE) * (bonds[0] * bonds[1]).sqrt()).sqrt()
    joints = [N_BEHIND, C_AHEAD]
    normal = gap / length
    levers = torch.linalg.cross(torch.stack([n, -c], -1), normal.unsqueeze(-1), dim=0)
    pull = (along[..., joints] * levers).sum(0)
    both = pull.abs().sum(-1, keepdim=True)
    slope[:, joints] += (wanted - length).unsqueeze(-1) * pull / ANGLE_SPREAD**2
    curve[:, joints] += both * pull.abs() / ANGLE_SPREAD**2


def _held(scene: Scene, beads: GivenBeads, joints: Joints) -> Held:
    residues = len(scene.kind)
    target = beads.position.flatten(0, 1)
    there = torch.isfinite(target).all(-1)
    (row,) = torch.nonzero(there.any(-1), as_tuple=True)
    frame, residue, target, there = row // residues, row % residues, target[row], there[row]
    whole = beads.shares[residue].to(target)
    places = row.unsqueeze(-1) * SLOTS + torch.arange(MAX_ATOMS, device=row.device)
    trace = scene.atoms[frame, residue, CA].unsqueeze(1)
    target = target.nan_to_num() - whole.sum(-1, keepdim=True) * trace
    moves = moved_by(row.device)[joints.part[places]].transpose(1, 2)
    shares = whole.unsqueeze(2) * moves.unsqueeze(1)
    return Held(row, places, shares, whole, target, there, beads.tolerance)


def _add_of_beads(
    slope: Tensor, curve: Tensor, local: Tensor, held: Held, along: Tensor, moment: Tensor
) -> None:
    """Add what beads that are missed cost, as `_of_overlap` has it."""
    atoms = local[:, held.places].permute(1, 2, 0)
    miss = (held.target - held.whole @ atoms) * held.there.unsqueeze(-1)
    along, moment = (x[:, held.row].permute(1, 2, 0).unsqueeze(1) for x in (along, moment))
    arm = held.shares @ atoms.unsqueeze(1)
    pull = torch.linalg.cross(along.expand_as(arm), arm)
    pull = (pull + held.shares.sum(-1, keepdim=True) * moment) * held.there[..., None, None]
    both = pull.abs().sum(2, keepdim=True)
    slope[held.row] += (pull * miss.unsqueeze(2)).sum((1, 3)) / held.tolerance**2
    curve[held.row] += (pull.abs() * both).sum((1, 3)) / held.tolerance**2
