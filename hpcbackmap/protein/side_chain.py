"""Side chains of many residues at once, in dense slots.

A residue has `MAX_ATOMS` slots in template order (N, CA, C, O, CB, ...), OXT in the last one. Which slot is
placed from which is a table by residue type, so that one loop over slots places every side chain.
"""

from functools import cache

import torch
from torch import Tensor

from hpcbackmap.protein.internal import (
    attach,
    dihedral,
    local_vector,
    place_atoms,
    proline_closure,
)
from hpcbackmap.protein.residues import BACKBONE, MAX_ATOMS, RESIDUE_INDEX, RESIDUES

__all__ = ["CB", "CG_CD", "N_CHI", "SIDE", "chi_of", "has_chi", "place_side_chains"]

CB = len(BACKBONE)
"""Slot of C-beta."""
SIDE = slice(CB + 1, MAX_ATOMS - 1)
"""Slots that torsions move."""
N_CHI = 4
CG_CD = 0.1503
"""Proline CG-CD bond, nm (Engh & Huber 1991)."""


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Of all slots of all types anchors [types, MAX_ATOMS, 3], number of its chi (0: fixed), is it placed."""
    anchors = torch.zeros(len(RESIDUES), MAX_ATOMS, 3, dtype=torch.int64)
    anchors[:] = torch.tensor([BACKBONE.index(name) for name in ("CA", "N", "C")])
    chi = torch.zeros(len(RESIDUES), MAX_ATOMS, dtype=torch.int64)
    there = torch.zeros(len(RESIDUES), MAX_ATOMS, dtype=torch.bool)
    for kind, template in enumerate(RESIDUES.values()):
        for row in template.placements:
            slot = template.atoms.index(row.atom)
            names = (row.parent, row.grandparent, row.great)
            anchors[kind, slot] = torch.tensor([template.atoms.index(name) for name in names])
            chi[kind, slot] = row.chi
            there[kind, slot] = True
    return anchors.to(device), chi.to(device), there.to(device)


def has_chi(kind: Tensor) -> Tensor:
    """Which chi torsions residues of type ``kind`` [n] have: bool [n, N_CHI]."""
    chi = _tables(kind.device)[1]
    there = torch.stack([(chi == k + 1).any(-1) for k in range(N_CHI)], -1)
    return there[kind]


def chi_of(positions: Tensor, kind: Tensor) -> Tensor:
    """Torsions chi, rad, of residues of type ``kind`` [n] in slots [n, MAX_ATOMS, 3]: [n, N_CHI], else 0."""
    anchors, chi, _ = (table[kind] for table in _tables(kind.device))
    wanted = torch.arange(1, N_CHI + 1, device=kind.device).unsqueeze(-1) == chi.unsqueeze(1)
    slot = wanted.byte().argmax(-1)
    row = torch.arange(len(kind), device=kind.device).unsqueeze(-1)
    parent, grandparent, great = (positions[row, anchors[row, slot, k]] for k in range(3))
    turn = dihedral(great, grandparent, parent, positions[row, slot])
    return torch.where(wanted.any(-1), turn, 0.0)


def place_side_chains(backbone: Tensor, kind: Tensor, rigid: Tensor, chi: Tensor) -> Tensor:
    """Positions of all slots, [n, MAX_ATOMS, 3], nm; slots that a residue lacks hold nonsense.

    backbone: N, CA, C, O, CB [n, 5, 3]. kind: residue types [n]. rigid: distance, angle and fixed dihedral of
    every slot [n, MAX_ATOMS, 3]. chi: torsions [n, N_CHI], rad. Proline rings are closed on CG.
    """
    anchors, number, there = (table[kind] for table in _tables(kind.device))
    turn = chi.gather(-1, (number - 1).clamp_min(0))
    phi = torch.where(number > 0, turn, rigid[..., 2])
    internal = torch.cat([rigid[..., :2], phi.unsqueeze(-1)], -1)
    vector = local_vector(internal)
    missing = backbone.new_zeros(len(kind), MAX_ATOMS - backbone.shape[1], 3)
    positions = torch.cat([backbone, missing], 1)
    for slot in range(SIDE.start, SIDE.stop):
        rows = torch.nonzero(there[:, slot]).squeeze(-1)
        if len(rows) == 0:
            break
        parent, grandparent, great = positions[rows.unsqueeze(-1), anchors[rows, slot]].unbind(1)
        positions[rows, slot] = attach(parent, grandparent, great, vector[rows, slot])
    _close_prolines(positions, kind, internal)
    return positions


def _close_prolines(positions: Tensor, kind: Tensor, internal: Tensor) -> None:
    rows = torch.nonzero(kind == RESIDUE_INDEX["PRO"]).squeeze(-1)
    if len(rows) == 0:
        return
    order = RESIDUES["PRO"].atoms
    n, ca, cb, cg = (positions[rows, order.index(name)] for name in ("N", "CA", "CB", "CG"))
    cd = order.index("CD")
    distance, theta, _ = internal[rows, cd].unbind(-1)
    phi = proline_closure(n, ca, cb, cg, distance, theta, torch.full_like(distance, CG_CD))
    row = torch.stack([distance, theta, phi], -1)
    positions[rows, cd] = place_atoms(n, ca, cb, row)
