"""Side chains turned about their own bonds, many ways at a time, from where they are.

Every way turns chi 1 to chi 4 by given angles. The last torsion turns first, about the bond as it lies, so
that the turns before carry its axis along: an atom goes through the product of the turns up to its own.

Shapes: n rows (residues), C ways, P atoms of rows, S slots, of heavy atoms alone or with hydrogens.
"""

from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI
from hpcbackmap.stages.genzprot.hydrogen_slots import SLOTS, hydrogens_of_type

__all__ = ["ends_of_torsions", "levels_of_slots", "reach_of_slots", "rotations", "turned", "turns"]

ATOMS = 1024
"""Atoms turned at a time, which bounds the memory."""


def turned(atoms: Tensor, kind: Tensor, own: Tensor, slot: Tensor, angles: Tensor) -> Tensor:
    """Atoms of rows ``own`` in ``slot`` [P], that torsions move, where they go with every way: [3, P, C], nm.

    atoms [n, S, 3] from CB; kind [n]; angles: added to the torsions, rad [C, N_CHI].
    """
    moves, where = _moves(atoms, kind, angles)
    level = _tables(atoms.device)[1][kind[own], slot] - 1
    index, points = where[level, own], atoms[own, slot]
    found = atoms.new_empty(3, len(own), len(angles))
    for start in range(0, len(own), ATOMS):
        here = slice(start, start + ATOMS)
        chosen = moves.index_select(0, index[here])
        x, y, z = points[here, None, None, :].unbind(-1)
        place = torch.addcmul(chosen[:, :, 3], chosen[:, :, 0], x)
        place.addcmul_(chosen[:, :, 1], y).addcmul_(chosen[:, :, 2], z)
        found[:, here] = place.transpose(0, 1)
    return found


def _moves(atoms: Tensor, kind: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """What takes atoms that torsion k and those before it move to where they go, [m, 3, 4, C] (rotation,
    shift), for rows that have it alone, and which of these it is for each torsion and row, [N_CHI, n].
    """
    ends, _, count = (table[kind] for table in _tables(atoms.device))
    where = torch.zeros(N_CHI, len(kind), dtype=torch.int64, device=kind.device)
    found: list[Tensor] = []
    for k in range(N_CHI):
        (rows,) = torch.nonzero(count > k, as_tuple=True)
        start, end = atoms[rows.unsqueeze(-1), ends[rows, k]].unbind(1)
        moves = _about(end - start, end, angles[:, k])
        if k:
            moves = _after(found[-1].index_select(0, where[k - 1, rows]), moves)
        where[k, rows] = torch.arange(len(rows), device=rows.device)
        found.append(moves)
    sizes = [0, *(len(moves) for moves in found[:-1])]
    where += torch.tensor(sizes, device=where.device).cumsum(0).unsqueeze(-1)
    return torch.cat(found), where


def _about(axis: Tensor, end: Tensor, angle: Tensor) -> Tensor:
    """Turns about lines along ``axis`` [m, 3] through ``end`` [m, 3] by angles [C]: [m, 3, 4, C]."""
    u = torch.nn.functional.normalize(axis, dim=-1)
    x, y, z = u.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    outer = u.unsqueeze(-1) * u.unsqueeze(-2)
    one = torch.eye(3, dtype=axis.dtype, device=axis.device)
    parts = torch.stack([outer, one - outer, cross], -1)
    parts = torch.cat([parts, -(parts * end[:, None, :, None]).sum(2, keepdim=True)], 2)
    parts[:, :, 3, 0] += end
    waves = torch.stack([torch.ones_like(angle), angle.cos(), angle.sin()])
    return torch.matmul(parts, waves)


def _after(later: Tensor, first: Tensor) -> Tensor:
    """``first`` and then ``later``, [m, 3, 4, C] each."""
    total = later[:, :, :1] * first[:, :1]
    for k in (1, 2):
        total.addcmul_(later[:, :, k : k + 1], first[:, k : k + 1])
    total[:, :, 3] += later[:, :, 3]
    return total


def turns(axis: Tensor, end: Tensor, angle: Tensor) -> Tensor:
    """Rotation and shift [3, 4, n N_CHI] of atoms that torsion k and those before it move, when torsions of
    rows turn by ``angle`` [n, N_CHI] about bonds along ``axis`` [3, n, N_CHI] through ``end`` [3, n, N_CHI].
    """
    rotation = rotations(axis, angle)
    shift = end - (rotation * end).sum(1)
    moves = torch.cat([rotation, shift.unsqueeze(1)], 1)
    for k in range(1, N_CHI):
        before, own = moves[..., k - 1], moves[..., k].clone()
        total = before[:, :1] * own[:1]
        for j in (1, 2):
            total.addcmul_(before[:, j : j + 1], own[j : j + 1])
        total[:, 3] += before[:, 3]
        moves[..., k] = total
    return moves.flatten(2)


def rotations(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotations [3, 3, ...] about ``axis`` [3, ...] by ``angle`` [...]; an axis of zeros needs no turn."""
    x, y, z = axis
    cos, sin = angle.cos(), angle.sin()
    rest = 1 - cos
    entries = [
        cos + x * x * rest, x * y * rest - z * sin, x * z * rest + y * sin,
        x * y * rest + z * sin, cos + y * y * rest, y * z * rest - x * sin,
        x * z * rest - y * sin, y * z * rest + x * sin, cos + z * z * rest,
    ]  # fmt: skip
    found: Tensor = torch.stack(entries).unflatten(0, (3, 3))
    return found


def ends_of_torsions(kind: Tensor) -> Tensor:
    """Slots of both ends of the bond of each torsion [n, N_CHI, 2] of residue types [n]."""
    return _tables(kind.device)[0][kind]


def levels_of_slots(kind: Tensor) -> Tensor:
    """The last torsion that moves each slot, hydrogens' too, counted from 1, 0 for none [n, S]."""
    return _tables(kind.device)[1][kind]


def reach_of_slots(atoms: Tensor, kind: Tensor) -> Tensor:
    """How far from CB torsions can take each slot, nm [n, MAX_ATOMS]; atoms [n, MAX_ATOMS, 3] from CB.

    An atom stays as far from the start of the bond that it turns about, which from chi 3 on is not CB.
    """
    ends, level, _ = (table[kind] for table in _tables(atoms.device))
    pivots = ends[:, :, 0].clone()
    pivots[:, 0] = CB
    row = torch.arange(len(kind), device=kind.device).unsqueeze(-1)
    pivot = atoms[row, pivots.gather(1, (level[:, :MAX_ATOMS] - 1).clamp_min(0))]
    found: Tensor = (atoms - pivot).norm(dim=-1) + pivot.norm(dim=-1)
    return found


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Slots of both ends of the bond of each torsion [types, N_CHI, 2]; the last torsion that moves each slot,
    counted from 1, 0 for none [types, SLOTS]; how many torsions there are [types].
    """
    ends = torch.tensor([1, CB]).repeat(len(RESIDUES), N_CHI, 1)
    level = torch.zeros(len(RESIDUES), SLOTS, dtype=torch.int64)
    for kind, (name, template) in enumerate(RESIDUES.items()):
        slots = {name: slot for slot, name in enumerate(template.atoms)}
        for atom in template.placements:
            hung = [slots[name] for name in (atom.parent, atom.grandparent, atom.great)]
            level[kind, slots[atom.atom]] = atom.chi or max(int(level[kind, slot]) for slot in hung)
            if atom.chi:
                ends[kind, atom.chi - 1] = torch.tensor([hung[1], hung[0]])
        for slot, hydrogen in hydrogens_of_type(name).items():
            level[kind, slot] = max(int(level[kind, slots[by]]) for by in hydrogen.atoms)
    return ends.to(device), level.to(device), level.amax(1).to(device)
