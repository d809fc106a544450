"""Side chains turned about their own bonds, many ways at a time, from where they are.

Every way turns chi 1 to chi 4 by given angles. The last torsion turns first, about the bond as it lies, so
that the turns before carry its axis along: an atom goes through the product of the turns up to its own.

Shapes: n rows (residues), C ways, P atoms of rows.
"""

from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI

__all__ = ["reach_of_slots", "turned", "turns_of"]


def turns_of(atoms: Tensor, kind: Tensor, angles: Tensor) -> Tensor:
    """What takes atoms that torsion k and those before it move to where they go: [n, N_CHI, C, 3, 4].

    atoms [n, MAX_ATOMS, 3] from CB; kind [n]; angles: added to the torsions, rad [C, N_CHI].
    """
    ends, _ = (table[kind] for table in _tables(atoms.device))
    row = torch.arange(len(kind), device=kind.device).view(-1, 1, 1)
    start, end = atoms[row, ends].unbind(2)
    axis = torch.nn.functional.normalize(end - start, dim=-1)
    turn = _rotations(axis, angles.T.to(atoms))
    shift = end.unsqueeze(2) - torch.matmul(turn, end[:, :, None, :, None]).squeeze(-1)
    total, moved = turn[:, 0], shift[:, 0].unsqueeze(-1)
    found = [torch.cat([total, moved], -1)]
    for k in range(1, N_CHI):
        moved = torch.matmul(total, shift[:, k].unsqueeze(-1)) + moved
        total = torch.matmul(total, turn[:, k])
        found.append(torch.cat([total, moved], -1))
    return torch.stack(found, 1)


def turned(turns: Tensor, points: Tensor, kind: Tensor, row: Tensor, slot: Tensor) -> Tensor:
    """Atoms ``points`` [P, 3] of rows and slots [P] (that torsions move), every way: [3, P, C]."""
    level = _tables(points.device)[1][kind[row], slot] - 1
    chosen = turns.flatten(0, 1).index_select(0, row * N_CHI + level)
    x, y, z = points[:, None, None, :].unbind(-1)
    found = chosen[..., 0] * x + chosen[..., 1] * y + chosen[..., 2] * z + chosen[..., 3]
    return found.permute(2, 0, 1).contiguous()


def reach_of_slots(atoms: Tensor, kind: Tensor) -> Tensor:
    """How far from CB torsions can take each slot, nm [n, MAX_ATOMS]; atoms [n, MAX_ATOMS, 3] from CB.

    An atom stays as far from the start of the bond that it turns about, which from chi 3 on is not CB.
    """
    ends, level = (table[kind] for table in _tables(atoms.device))
    pivots = ends[:, :, 0].clone()
    pivots[:, 0] = CB
    row = torch.arange(len(kind), device=kind.device).unsqueeze(-1)
    pivot = atoms[row, pivots.gather(1, (level - 1).clamp_min(0))]
    return (atoms - pivot).norm(dim=-1) + pivot.norm(dim=-1)


def _rotations(axis: Tensor, angles: Tensor) -> Tensor:
    """Rotations about unit axes [n, N_CHI, 3] by angles [N_CHI, C]: [n, N_CHI, C, 3, 3]."""
    cosine, sine = angles.cos()[..., None, None], angles.sin()[..., None, None]
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    outer = axis.unsqueeze(-1) * axis.unsqueeze(-2)
    one = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return cosine * (one - outer).unsqueeze(2) + sine * cross.unsqueeze(2) + outer.unsqueeze(2)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Slots of both ends of the bond of each torsion [types, N_CHI, 2], and the last torsion that moves each
    slot, counted from 1, 0 for none [types, MAX_ATOMS]. A torsion that a type lacks has CA and CB.
    """
    ends = torch.tensor([1, CB]).repeat(len(RESIDUES), N_CHI, 1)
    level = torch.zeros(len(RESIDUES), MAX_ATOMS, dtype=torch.int64)
    for kind, template in enumerate(RESIDUES.values()):
        slots = {name: slot for slot, name in enumerate(template.atoms)}
        for atom in template.placements:
            hung = [slots[name] for name in (atom.parent, atom.grandparent, atom.great)]
            level[kind, slots[atom.atom]] = atom.chi or max(int(level[kind, slot]) for slot in hung)
            if atom.chi:
                ends[kind, atom.chi - 1] = torch.tensor([hung[1], hung[0]])
    return ends.to(device), level.to(device)
