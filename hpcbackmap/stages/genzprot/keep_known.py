"""Backbone atoms that the input holds, in the place of generated ones."""

import torch
from torch import Tensor

from hpcbackmap.protein.internal import place_atoms
from hpcbackmap.protein.residues import MAX_ATOMS
from hpcbackmap.protein.side_chain import CB
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.stages.genzprot.system import ResidueSystem

__all__ = ["keep_known"]

N, CA, C, OXYGEN = range(4)


def keep_known(
    atoms: Tensor, known: Tensor, rigid: Tensor, torsions: Tensor, system: ResidueSystem
) -> Tensor:
    """Dense atoms [F, R, MAX_ATOMS, 3] with ``known`` [F, R, 5, 3] where these are numbers.

    O, OXT and CB that hang on known atoms and are not known themselves are placed from these. rigid [F, A, 3];
    torsions [F, R, N_TORSIONS].
    """
    there = torch.isfinite(known).all(-1)
    atoms = atoms.clone()
    atoms[..., : CB + 1, :] = torch.where(there.unsqueeze(-1), known, atoms[..., : CB + 1, :])
    n, ca, c = (atoms[..., k, :] for k in (N, CA, C))
    dense = rigid[:, system.atom_index]
    hung = there[..., C]
    atoms[..., CB, :] = _unless(there[..., CB], atoms, CB, place_atoms(ca, n, c, dense[..., CB, :]))
    ends = torsions[..., Role.END_O]
    internal = dense[..., OXYGEN, :].clone()
    internal[..., 2] = torch.where(system.leads, internal[..., 2], ends)
    third = torch.where(system.leads.unsqueeze(-1), n[:, system.bead_next], n)
    oxygen = place_atoms(c, ca, third, internal)
    atoms[..., OXYGEN, :] = _unless(there[..., OXYGEN] | ~hung, atoms, OXYGEN, oxygen)
    last = MAX_ATOMS - 1
    terminal = place_atoms(c, ca, atoms[..., OXYGEN, :], dense[..., last, :])
    bare = (hung & system.atom_mask[:, last]).unsqueeze(-1)
    atoms[..., last, :] = torch.where(bare, terminal, atoms[..., last, :])
    return atoms


def _unless(there: Tensor, atoms: Tensor, slot: int, other: Tensor) -> Tensor:
    return torch.where(there.unsqueeze(-1), atoms[..., slot, :], other)
