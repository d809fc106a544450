"""Side chains of a member pushed out of what they overlap: a little, in their own rotamer or another one.

A drawn side chain that overlaps other atoms deeply tries torsions near those it has, and other rotamers of
chi 1 and chi 2. The cheapest stays: overlap that is left, against how far the torsions went and, where beads
are given, these are missed. Unlike in a redraw, all atoms count, however far the C-alpha atoms are apart, and
the residue's own N and carbonyl. At last, side chains that are locked in others try torsions all around. What
overlaps a little, hydrogens included, is left to `ease.py`.

Shapes: R residues, n rows (residues of frames), C candidates, P atoms that the rows' torsions move, Q pairs of
one of these and another atom.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI, SIDE
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.clashes import radii_of_slots
from hpcbackmap.stages.genzprot.contacts import (
    NITROGEN,
    Movable,
    Surroundings,
    movable_of,
    own_slots,
    surroundings_of,
)
from hpcbackmap.stages.genzprot.dense_atoms import Scene, flat
from hpcbackmap.stages.genzprot.images import pairs_of_images
from hpcbackmap.stages.genzprot.restraints import misfit
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.turning import turned
from hpcbackmap.stages.layers.geometry import pairs_within

__all__ = ["push"]

SWEEPS = 1
"""In each, residues of even number move, then those of odd: neighbours do not evade each other."""
NEAR, WIDTH = 16, math.radians(12.0)
"""Candidates near the torsions that are there, and the standard deviation of their torsions, rad."""
TURNS = (0.0, 120.0, 240.0)
"""Degrees by which chi 1 and chi 2 of the other candidates are turned."""
TURN_COST = 6.0
"""Nats of leaving a rotamer that the stage drew: only where every candidate near it costs more is it left."""
SOFTNESS, HARD = 0.04, 0.03
"""An overlap of x nm costs x / SOFTNESS (1 + x / HARD) nats: hydrogens that touch a little, atoms much."""
RADIUS = {"C": 0.175, "N": 0.142, "O": 0.132, "S": 0.180}
"""nm, with their hydrogens; partners of a hydrogen bond do not touch."""
FARTHEST = 2 * max(RADIUS.values())
SLIGHT = 0.03
"""nm; where nothing overlaps more, a side chain is left to `ease.py`."""
LOCKED = 0.2
"""nm; atoms that are nearer after that are locked: such side chains try torsions all around."""
TURNWISE = 8
"""Every eighth residue moves at a time: two that are locked in each other must not go to one place."""
ALL_AROUND = (20.0, 30.0)
"""Degrees between those of chi 1 and of chi 2."""
PAIRS = 8192
"""Pairs of atoms compared at a time, for all candidates: they fit the cache."""


class Contacts(NamedTuple):
    """Pairs that may touch: atom of the `Movable` and its row [Q]; where the other is from CB of the row, nm
    [3, Q]; touch: distance at which they overlap, and apart: how far they are [Q], nm.
    """

    atom: Tensor
    row: Tensor
    other: Tensor
    touch: Tensor
    apart: Tensor

    def picked(self, pairs: Tensor) -> "Contacts":
        other = self.other.index_select(1, pairs)
        atom, row, touch, apart = (
            x.index_select(0, pairs) for x in (self.atom, self.row, self.touch, self.apart)
        )
        return Contacts(atom, row, other, touch, apart)


def push(scene: Scene, system: ResidueSystem, moving: Tensor) -> None:
    """Move side chains of ``scene`` that overlap other atoms, in place; moving: residues that may, bool [R]."""
    halves = []
    for parity in (0, 1):
        some = (moving & (system.place % 2 == parity)).expand(len(scene.atoms), -1)
        movable = movable_of(scene, some)
        halves.append((movable, surroundings_of(scene, system, movable, some, FARTHEST)))
    for movable, around in halves * SWEEPS:
        if len(movable.frame):
            _move(scene, system, movable, around)
    close = _close(scene, system) & moving
    for turn in range(TURNWISE):
        _free(scene, system, close & (system.place % TURNWISE == turn))


def _close(scene: Scene, system: ResidueSystem) -> Tensor:
    """Residues with an atom that may be locked: as near to one of another residue as a bond, bool [F, R]."""
    found = torch.zeros(scene.atoms.shape[:2], dtype=torch.bool, device=scene.atoms.device)
    side = (system.slot >= SIDE.start) & (system.slot < SIDE.stop)
    residue, own = system.bead_of, own_slots(side.device)[system.slot]
    for frame, points in enumerate(flat(scene.atoms, system)):
        if scene.box is None or not scene.box.cell[frame].any():
            first, second = pairs_within(points, system.fine_system, LOCKED)
        else:
            first, second = pairs_of_images(points, scene.box.cell[frame], LOCKED)
        for one, other in ((first, second), (second, first)):
            apart = side[one] & ((residue[one] != residue[other]) | own[other])
            found[frame, residue[one[apart]]] = True
    return found


def _free(scene: Scene, system: ResidueSystem, few: Tensor) -> None:
    """Side chains of ``few`` [F, R] that are locked take the cheapest torsions all around, all at once."""
    movable = movable_of(scene, few)
    if not len(movable.frame):
        return
    atoms = movable.atoms(scene)
    around = surroundings_of(scene, system, movable, few, FARTHEST)
    contacts = _contacts(scene, movable, around, atoms)
    inside = contacts.apart < contacts.touch.clamp_max(LOCKED)
    locked = torch.zeros(len(movable.frame), dtype=torch.bool, device=atoms.device)
    locked[contacts.row[inside]] = True
    some, contacts, atoms = _chosen(movable, contacts, atoms, locked)
    if not len(some.frame):
        return
    ways, nats = (table.to(atoms) for table in _all_around())
    cost = nats.expand(len(some.frame), -1)
    _, _, positions = _cheapest(scene, some, contacts, atoms, ways, cost)
    scene.atoms[some.frame[some.own], some.residue[some.own], some.slot] = positions


def _move(scene: Scene, system: ResidueSystem, movable: Movable, around: Surroundings) -> None:
    """Take the cheapest candidate of every row that is pressed, all at once."""
    atoms = movable.atoms(scene)
    contacts = _contacts(scene, movable, around, atoms)
    deep = contacts.picked(torch.nonzero(contacts.apart < contacts.touch - SLIGHT).squeeze(-1))
    pressed = torch.zeros(len(movable.frame), dtype=torch.bool, device=atoms.device)
    pressed[deep.row] = True
    some, contacts, atoms = _chosen(movable, contacts, atoms, pressed)
    if not len(some.frame):
        return
    leans, nats = _near(atoms)
    there = system.torsion_mask[some.residue, Role.CHI1 : Role.CHI1 + N_CHI]
    least, best, positions = _cheapest(
        scene, some, contacts, atoms, leans, (nats * there.unsqueeze(1)).sum(-1)
    )
    moves = best > 0
    hard = least > TURN_COST
    if hard.any():
        few, theirs, their_atoms = _chosen(some, contacts, atoms, hard)
        cost = torch.full_like(least[hard], TURN_COST).unsqueeze(-1)
        other, _, turned_to = _cheapest(scene, few, theirs, their_atoms, _turns(atoms), cost)
        better = torch.zeros_like(hard)
        better[hard] = other < least[hard]
        positions[hard[some.own]] = torch.where(
            better[hard][few.own].unsqueeze(-1), turned_to, positions[hard[some.own]]
        )
        moves |= better
    kept = moves[some.own]
    row = some.own[kept]
    scene.atoms[some.frame[row], some.residue[row], some.slot[kept]] = positions[kept]


def _contacts(scene: Scene, movable: Movable, around: Surroundings, atoms: Tensor) -> Contacts:
    """Atoms that torsions move with all others that they may come to overlap."""
    near = around.atoms(scene, movable)
    far = near.distance - FARTHEST
    entry, slot = torch.nonzero(
        movable.reach.index_select(0, near.row) > far.unsqueeze(-1), as_tuple=True
    )
    row = near.row[entry]
    radius = _radii(atoms.device)
    mine = radius[movable.kind[row], slot + SIDE.start]
    theirs = radius[scene.kind[near.residue], near.slot][entry]
    bridge = (mine > RADIUS["C"]) & (theirs > RADIUS["C"])  # sulphur, perhaps a disulphide
    bonded = (near.residue == movable.residue[near.row]) & (near.slot == NITROGEN)
    bonded = bonded[entry] & _next_to_cb(atoms.device)[movable.kind[row], slot + SIDE.start]
    touch = (mine + theirs).masked_fill_(bridge | bonded, 0.0).to(atoms)
    atom = movable.number[row, slot]
    other = near.gap.index_select(1, entry)
    points = atoms[movable.own, movable.slot].T
    apart = _distances(points.unsqueeze(-1).contiguous(), atom, other).squeeze(-1)
    return Contacts(atom, row, other, touch, apart)


def _chosen(
    movable: Movable, contacts: Contacts, atoms: Tensor, rows: Tensor
) -> tuple[Movable, Contacts, Tensor]:
    """Some of the rows, bool [n], their contacts, and their atoms [n, MAX_ATOMS, 3]."""
    number = rows.cumsum(0) - 1
    kept = rows[movable.own]
    atom = kept.cumsum(0) - 1
    theirs = contacts.picked(torch.nonzero(rows[contacts.row]).squeeze(-1))
    theirs = theirs._replace(atom=atom[theirs.atom], row=number[theirs.row])
    some = movable._replace(
        frame=movable.frame[rows],
        residue=movable.residue[rows],
        kind=movable.kind[rows],
        own=number[movable.own[kept]],
        slot=movable.slot[kept],
    )
    return some, theirs, atoms[rows]


def _cheapest(
    scene: Scene, movable: Movable, contacts: Contacts, atoms: Tensor, ways: Tensor, cost: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of candidates that turn by ``ways`` [C, N_CHI] and cost as much beside overlap [n, C]: the least cost
    [n], which candidate it is [n], and where its atoms are then [P, 3], nm.
    """
    side = turned(atoms, movable.kind, movable.own, movable.slot, ways)
    here = atoms[movable.own, movable.slot].T.unsqueeze(-1)
    spread = (side - here).square_().sum(0).amax(-1).sqrt_()
    close = torch.nonzero(contacts.apart < contacts.touch + spread[contacts.atom]).squeeze(-1)
    cost = cost + _nats(side, contacts.picked(close), len(movable.frame))
    centre = scene.atoms[movable.frame, movable.residue, CB]
    if scene.beads is not None:
        full = (atoms + centre.unsqueeze(1)).unsqueeze(1).repeat(1, len(ways), 1, 1)
        full[movable.own, :, movable.slot] = side.permute(1, 2, 0) + centre[movable.own].unsqueeze(
            1
        )
        cost = cost + misfit(full, scene, movable.frame, movable.residue)
    least, best = cost.min(1)
    number = torch.arange(len(movable.own), device=best.device)
    return least, best, side[:, number, best[movable.own]].T + centre[movable.own]


def _nats(side: Tensor, contacts: Contacts, count: int) -> Tensor:
    """Nats [n, C] for how far atoms ``side`` [3, P, C] of ``count`` rows reach into others."""
    total = side.new_zeros(count, side.shape[-1])
    for start in range(0, len(contacts.atom), PAIRS):
        here = slice(start, start + PAIRS)
        apart = _distances(side, contacts.atom[here], contacts.other[:, here])
        depth = (contacts.touch[here].unsqueeze(-1) - apart).clamp_min_(0)
        total.index_add_(0, contacts.row[here], depth.addcmul(depth, depth, value=1 / HARD))
    return total.div_(SOFTNESS)


def _distances(side: Tensor, atom: Tensor, other: Tensor) -> Tensor:
    """Distances [Q, C] of atoms ``side`` [3, P, C] from others [3, Q]."""
    squared = (side[0].index_select(0, atom).sub_(other[0].unsqueeze(-1))).square_()
    for k in (1, 2):
        gap = side[k].index_select(0, atom).sub_(other[k].unsqueeze(-1))
        squared.addcmul_(gap, gap)
    return squared.sqrt_()


@cache
def _radii(device: torch.device) -> Tensor:
    """Of each slot of each residue type [types, MAX_ATOMS], nm."""
    return radii_of_slots(RADIUS).to(device)


@cache
def _next_to_cb(device: torch.device) -> Tensor:
    """Slots whose atoms hang on CB, three bonds from N, bool [types, MAX_ATOMS]."""
    table = torch.zeros(len(RESIDUES), MAX_ATOMS, dtype=torch.bool)
    for kind, template in enumerate(RESIDUES.values()):
        for atom in template.placements:
            table[kind, template.atoms.index(atom.atom)] = atom.parent == "CB"
    return table.to(device)


@cache
def _near_candidates() -> tuple[Tensor, Tensor]:
    """Torsions near those that are there: what they add, rad, and what each costs, nats: [C, N_CHI] both.

    The first changes nothing; the others are evenly spread normal deviates.
    """
    even = torch.quasirandom.SobolEngine(N_CHI).draw(NEAR)
    normal = torch.special.ndtri(even.clamp(0.01, 0.99))
    normal[0] = 0.0
    return WIDTH * normal, 0.5 * normal.square()


def _near(like: Tensor) -> tuple[Tensor, Tensor]:
    leans, nats = _near_candidates()
    return leans.to(like), nats.to(like)


def _turns(like: Tensor) -> Tensor:
    """What other rotamers add to the torsions, rad [C, N_CHI]."""
    turns = [(a, b, 0.0, 0.0) for a in TURNS for b in TURNS if a or b]
    return torch.deg2rad(torch.tensor(turns)).to(like)


@cache
def _all_around() -> tuple[Tensor, Tensor]:
    """Chi 1 and chi 2 all around: what they add, rad [C, N_CHI], and what it costs, nats [C]."""
    first, second = (torch.arange(0.0, 360.0, step) for step in ALL_AROUND)
    turns = torch.deg2rad(torch.cartesian_prod(first, second))
    cost = (0.5 * TURN_COST * (1 - turns.cos())).sum(-1)
    return torch.nn.functional.pad(turns, (0, N_CHI - 2)), cost
