"""What turns about CA of a residue, its torsions and the peptide planes on both sides, and what goes with it.

A plane, C and O of a residue with N and H of the next one, turns as a body about the line through both CA:
its bonds, its angles and omega stay. All else that hangs on CA goes with N, and with C about CA-N: bonds and
angles to N stay. A turn is the motion of a screw without pitch: an atom at r moves by along x r + moment.

Shapes: F frames, R residues, S slots with hydrogens, n rows (residues of frames), P atoms that joints move. A
place is a slot, counted through frames and residues; positions are from CA of the residue, nm.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene
from hpcbackmap.stages.genzprot.hydrogen_slots import AMIDE, SLOTS
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.turning import ends_of_torsions, levels_of_slots, rotations, turns

__all__ = [
    "C_AHEAD",
    "FIXED",
    "JOINTS",
    "N_BEHIND",
    "Joints",
    "joints_of",
    "moved",
    "moved_by",
    "planes_ahead",
    "screws",
]

N, CA, C, OXYGEN = range(len(BACKBONE))
JOINTS = N_CHI + 4
"""Of each residue: its torsions, then those below."""
N_BEHIND, C_AHEAD, HUNG_BEHIND, HUNG_AHEAD = range(N_CHI, JOINTS)
"""N with the plane behind, C with the plane ahead, and what hangs on CA with either."""
PARTS = N_CHI + 3
"""What moves alike: atoms up to each torsion, then those below."""
HUNG, OF_N, OF_C = range(N_CHI, PARTS)
FIXED = -1
SHORTEST = 1e-6
"""nm; no less, where a known N, CA and C lie in one line."""


class Joints(NamedTuple):
    """start, end: places of both ends of the bond of each torsion [n N_CHI]. axis [3, n, 2]: along the CA of
    the planes behind and ahead, 0 where there is none that turns; ahead: rows with one ahead, bool [n].
    before, after [n]: rows of the residues that a row is bonded to. part [n S]: of each place. place [P]: of
    each atom that moves; move [P]: which of the n PARTS moves takes it.
    """

    start: Tensor
    end: Tensor
    axis: Tensor
    ahead: Tensor
    before: Tensor
    after: Tensor
    part: Tensor
    place: Tensor
    move: Tensor

    def of_each(self, values: Tensor) -> Tensor:
        """Of slopes or curvatures [n, JOINTS], those of torsions and of the plane ahead [n, N_CHI + 1]."""
        behind = values[:, N_BEHIND] + values[:, HUNG_BEHIND]
        plane = values[:, C_AHEAD] + values[:, HUNG_AHEAD] + behind[self.after]
        return torch.cat([values[:, :N_CHI], (plane * self.ahead).unsqueeze(-1)], 1)

    def of_all(self, turn: Tensor) -> Tensor:
        """Of turns of torsions and of the plane ahead [n, N_CHI + 1], those of all joints [n, JOINTS]."""
        planes = torch.stack([turn[self.before, N_CHI], turn[:, N_CHI]], 1)
        return torch.cat([turn[:, :N_CHI], planes, planes], 1)


def planes_ahead(system: ResidueSystem) -> Tensor:
    """Residues whose plane ahead may turn, bool [R]: not before proline, whose ring holds its N."""
    return system.leads & ~system.proline[system.bead_next]


def joints_of(scene: Scene, atoms: Tensor, moving: Tensor, planes: Tensor) -> Joints:
    """Of atoms [F, R, S, 3]. moving: residues whose torsions may turn; planes: those of which the plane ahead
    may, bool [R] both.
    """
    frames, residues = atoms.shape[:2]
    first = residues * torch.arange(frames, device=atoms.device).unsqueeze(-1)
    before, after = ((first + x).flatten() for x in (scene.before, scene.after))
    own = torch.arange(residues, device=atoms.device)
    ahead = planes & (scene.after != own)
    behind = ahead[scene.before] & (scene.before != own)
    trace = atoms[:, :, CA]
    along = torch.nn.functional.normalize(trace[:, scene.after] - trace, dim=-1)
    axis = torch.stack(
        [along[:, scene.before] * behind.unsqueeze(-1), along * ahead.unsqueeze(-1)], -1
    )
    part = _parts(scene, moving, behind, ahead)
    part = part.masked_fill(atoms[0, :, :, 0] > AWAY / 2, FIXED).repeat(frames, 1).flatten()
    (place,) = torch.nonzero(part != FIXED, as_tuple=True)
    row = torch.arange(frames * residues, device=atoms.device)
    ends = row.view(-1, 1, 1) * SLOTS + ends_of_torsions(scene.kind).repeat(frames, 1, 1)
    start, end = ends.flatten(0, 1).unbind(-1)
    axis = axis.flatten(0, 1).permute(1, 0, 2).contiguous()
    move = place // SLOTS * PARTS + part[place]
    return Joints(start, end, axis, ahead.repeat(frames), before, after, part, place, move)


def _parts(scene: Scene, moving: Tensor, behind: Tensor, ahead: Tensor) -> Tensor:
    """Of each slot [R, S]."""
    level = levels_of_slots(scene.kind) * moving.unsqueeze(-1)
    hung = torch.where(behind | ahead, HUNG, FIXED).unsqueeze(-1)
    part = torch.where(level > 0, level - 1, hung)
    part[:, CA] = FIXED
    part[:, [N, AMIDE]] = torch.where(behind, OF_N, FIXED).unsqueeze(-1)
    part[:, [C, OXYGEN, MAX_ATOMS - 1]] = torch.where(ahead, OF_C, FIXED).unsqueeze(-1)
    return part


@cache
def moved_by(device: torch.device) -> Tensor:
    """Which joints move each part, none a fixed one, bool [PARTS + 1, JOINTS]."""
    table = torch.zeros(PARTS + 1, JOINTS, dtype=torch.bool)
    table[:N_CHI, :N_CHI] = torch.ones(N_CHI, N_CHI).tril()
    table[: HUNG + 1, HUNG_BEHIND:] = True
    table[OF_N, N_BEHIND] = table[OF_C, C_AHEAD] = True
    return table.to(device)


def screws(local: Tensor, joints: Joints) -> tuple[Tensor, Tensor]:
    """Motion of atoms with each joint, per rad: along and moment, [3, n, JOINTS] both; local [3, n S]."""
    start, end = (local.index_select(1, ends) for ends in (joints.start, joints.end))
    along = end - start
    along /= along.square().sum(0).sqrt_()
    moment = torch.linalg.cross(end, along, dim=0).unflatten(1, (-1, N_CHI))
    x, y, _ = _axes(*_n_and_c(local)).unbind(1)
    c = local[:, C::SLOTS]
    cotangent = (x * c).sum(0) / (y * c).sum(0).clamp_min(SHORTEST)
    about = x - cotangent * y  # how much of a turn of C is one about CA-N
    behind, ahead = joints.axis.unbind(-1)
    hung_behind = behind - (behind * about).sum(0) * x
    hung_ahead = (ahead * about).sum(0) * x
    planes = torch.stack([behind, ahead, hung_behind, hung_ahead], -1)
    along = torch.cat([along.unflatten(1, (-1, N_CHI)), planes], -1)
    return along, torch.cat([moment, torch.zeros_like(planes)], -1)


def moved(local: Tensor, joints: Joints, along: Tensor, step: Tensor) -> Tensor:
    """Where atoms [3, P] go with turns ``step`` [n, JOINTS] of joints that `screws` describes."""
    torsions = slice(0, N_CHI)
    end = local.index_select(1, joints.end).unflatten(1, (-1, N_CHI))
    turned = turns(along[..., torsions], end, step[:, torsions]).unflatten(2, (-1, N_CHI))
    planes = rotations(joints.axis, step[:, N_BEHIND : C_AHEAD + 1])
    n, c = _n_and_c(local)
    new = _axes((planes[..., 0] * n).sum(1), (planes[..., 1] * c).sum(1))
    hung = (new.unsqueeze(1) * _axes(n, c)).sum(2)
    turned = (hung[:, :, None, :, None] * turned).sum(1)
    bodies = torch.cat([hung.unsqueeze(-1), planes], -1)
    bodies = torch.cat([bodies, torch.zeros_like(bodies[:, :1])], 1)
    move = torch.cat([turned, bodies], -1).flatten(2)
    here = [x.index_select(0, joints.place) for x in local]
    found = []
    for *rotation, shift in move:  # row by row, which is fast
        goal = shift.index_select(0, joints.move)
        for by, x in zip(rotation, here, strict=True):
            goal.addcmul_(by.index_select(0, joints.move), x)
        found.append(goal)
    return torch.stack(found)


def _n_and_c(local: Tensor) -> tuple[Tensor, Tensor]:
    return local[:, N::SLOTS], local[:, C::SLOTS]


def _axes(n: Tensor, c: Tensor) -> Tensor:
    """Along N, across it towards C, and out of the plane: [3, 3, n], the second counts them."""
    x = n / n.square().sum(0).sqrt()
    z = torch.linalg.cross(x, c, dim=0)
    z = z / z.square().sum(0).sqrt().clamp_min(SHORTEST)
    return torch.stack([x, torch.linalg.cross(z, x, dim=0), z], 1)
