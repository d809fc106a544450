"""Side chains of a member pushed out of what they overlap: a little, in their own rotamer or another one.

A drawn side chain that overlaps other atoms tries torsions near those it has, and other rotamers of chi 1 and
chi 2. The cheapest stays: overlap that is left, against how far the torsions went and, where beads are
given, these are missed. Unlike in a redraw, all atoms count, however far the C-alpha atoms are apart, and
the residue's own carbonyl.

Shapes: F frames, R residues, n rows (residues of frames), C candidates, P atoms that the rows' torsions move,
Q pairs of one of these and another atom.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import CB, N_CHI, SIDE
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.clashes import radii_of_slots
from hpcbackmap.stages.genzprot.contacts import around, residue_pairs
from hpcbackmap.stages.genzprot.dense_atoms import Scene
from hpcbackmap.stages.genzprot.restraints import misfit
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.turning import reach_of_slots, turned, turns_of

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
ROWS = 256
"""Residues that try candidates at a time."""
PAIRS = 4096
"""Pairs of atoms compared at a time, for all candidates: they fit the cache."""


class Rows(NamedTuple):
    """Side chains that may move. frame, residue, kind [n]; atoms [n, MAX_ATOMS, 3] from CB, nm. own, slot [P]:
    row and slot of each atom that torsions move.
    """

    frame: Tensor
    residue: Tensor
    kind: Tensor
    atoms: Tensor
    own: Tensor
    slot: Tensor


class Contacts(NamedTuple):
    """Pairs that may touch: atom of `Rows` and its row [Q]; where the other is from CB of the row [Q, 3], nm;
    touch: distance at which they overlap [Q], nm.
    """

    atom: Tensor
    row: Tensor
    other: Tensor
    touch: Tensor


def push(scene: Scene, system: ResidueSystem, moving: Tensor) -> None:
    """Move side chains of ``scene`` that overlap other atoms, in place; moving: residues that may, bool [R]."""
    frames = len(scene.atoms)
    halves = []
    for parity in (0, 1):
        some = (moving & (system.place % 2 == parity)).expand(frames, -1)
        halves.append((some, residue_pairs(scene, system, some, FARTHEST)))
    for some, pairs in halves * SWEEPS:
        rows = _rows(scene, *torch.nonzero(some, as_tuple=True))
        if len(rows.frame):
            _move(scene, system, rows, pairs)


def _rows(scene: Scene, frame: Tensor, residue: Tensor) -> Rows:
    atoms = scene.atoms[frame, residue]
    atoms = atoms - atoms[:, CB].unsqueeze(1)
    own, slot = torch.nonzero(scene.there[residue, SIDE], as_tuple=True)
    return Rows(frame, residue, scene.kind[residue], atoms, own, slot + SIDE.start)


def _move(
    scene: Scene, system: ResidueSystem, rows: Rows, pairs: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Take the cheapest candidate of every row that is pressed, all at once."""
    contacts = _contacts(scene, rows, pairs)
    points = rows.atoms[rows.own, rows.slot]
    here = _nats(points.T.unsqueeze(-1).contiguous(), contacts, len(rows.frame)).squeeze(-1)
    pressed = torch.nonzero(here > 0).squeeze(-1)
    moves = []
    for start in range(0, len(pressed), ROWS):
        some, theirs = _chosen(rows, contacts, pressed[start : start + ROWS])
        moves.append(_best(scene, system, some, theirs))
    for frame, residue, slot, positions in moves:
        scene.atoms[frame, residue, slot] = positions


def _contacts(scene: Scene, rows: Rows, pairs: tuple[Tensor, Tensor, Tensor]) -> Contacts:
    """Atoms that torsions move with all others that they may come to overlap."""
    number = torch.full(scene.atoms.shape[:2], -1, device=rows.frame.device)
    number[rows.frame, rows.residue] = torch.arange(len(rows.frame), device=number.device)
    frame, own, other = pairs
    reach = reach_of_slots(rows.atoms, rows.kind)
    there = scene.there[rows.residue, SIDE]
    reach = reach[:, SIDE].masked_fill(~there, -FARTHEST)
    near = around(scene, number[frame, own], frame, own, other, reach.amax(-1) + FARTHEST)
    entry, slot = torch.nonzero(
        near.distance.unsqueeze(-1) < reach[near.row] + FARTHEST, as_tuple=True
    )
    row = near.row[entry]
    atom = torch.zeros_like(there, dtype=torch.int64)
    atom[there] = torch.arange(len(rows.own), device=atom.device)
    radius = _radii(scene.atoms.device)
    mine = radius[rows.kind[row], slot + SIDE.start]
    theirs = radius[scene.kind[near.residue], near.slot][entry]
    bridge = (mine > RADIUS["C"]) & (theirs > RADIUS["C"])  # sulphur, perhaps a disulphide
    touch = (mine + theirs).masked_fill_(bridge, 0.0)
    return Contacts(atom[row, slot], row, near.gap[entry], touch.to(near.gap))


def _chosen(rows: Rows, contacts: Contacts, few: Tensor) -> tuple[Rows, Contacts]:
    """``few`` of the rows, and their contacts."""
    number = torch.full_like(rows.frame, -1)
    number[few] = torch.arange(len(few), device=few.device)
    kept = torch.nonzero(number[rows.own] >= 0).squeeze(-1)
    atom = torch.full_like(rows.own, -1)
    atom[kept] = torch.arange(len(kept), device=kept.device)
    row = number[contacts.row]
    pair = torch.nonzero(row >= 0).squeeze(-1)
    some = Rows(
        rows.frame[few],
        rows.residue[few],
        rows.kind[few],
        rows.atoms[few],
        number[rows.own[kept]],
        rows.slot[kept],
    )
    return some, Contacts(
        atom[contacts.atom[pair]], row[pair], contacts.other[pair], contacts.touch[pair]
    )


def _best(
    scene: Scene, system: ResidueSystem, rows: Rows, contacts: Contacts
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Frame, residue, slot [P] and position [P, 3] of the atoms of the cheapest candidate of each row."""
    leans, nats = (table.to(scene.atoms) for table in _candidates())
    there = system.torsion_mask[rows.residue, Role.CHI1 : Role.CHI1 + N_CHI]
    turns = turns_of(rows.atoms, rows.kind, leans)
    side = turned(turns, rows.atoms[rows.own, rows.slot], rows.kind, rows.own, rows.slot)
    cost = (nats * there.unsqueeze(1)).sum(-1) + _nats(side, contacts, len(rows.frame))
    centre = scene.atoms[rows.frame, rows.residue, CB]
    if scene.beads is not None:
        full = (rows.atoms + centre.unsqueeze(1)).unsqueeze(1).repeat(1, len(leans), 1, 1)
        full[rows.own, :, rows.slot] = side.permute(1, 2, 0) + centre[rows.own].unsqueeze(1)
        cost = cost + misfit(full, scene, rows.frame, rows.residue)
    best = cost.argmin(1)[rows.own]
    position = side[:, torch.arange(len(best), device=best.device), best].T + centre[rows.own]
    return rows.frame[rows.own], rows.residue[rows.own], rows.slot, position


def _nats(side: Tensor, contacts: Contacts, count: int) -> Tensor:
    """Nats [n, C] for how far atoms ``side`` [3, P, C] of ``count`` rows reach into others."""
    total = side.new_zeros(count, side.shape[-1])
    for start in range(0, len(contacts.atom), PAIRS):
        here = slice(start, start + PAIRS)
        squared: Tensor | None = None
        for mine, theirs in zip(side, contacts.other[here].T.unsqueeze(-1), strict=True):
            gap = mine.index_select(0, contacts.atom[here]).sub_(theirs)
            squared = gap.square_() if squared is None else squared.addcmul_(gap, gap)
        assert squared is not None
        depth = squared.sqrt_().neg_().add_(contacts.touch[here].unsqueeze(-1)).clamp_min_(0)
        total.index_add_(0, contacts.row[here], depth.addcmul(depth, depth, value=1 / HARD))
    return total.div_(SOFTNESS)


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
