"""A structure in dense slots, as far as it is known, and its parts put together.

Shapes: F frames, R residues, A heavy atoms, K neighbour residues, n rows (residues of frames).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Batch

from hpcbackmap.protein.internal import place_atoms, positions_from_internal
from hpcbackmap.protein.residues import MAX_ATOMS
from hpcbackmap.protein.side_chain import CB, SIDE, place_side_chains
from hpcbackmap.protein.zmatrix import N_TORSIONS

__all__ = ["Scene", "add_side_chains", "backbone_atoms", "flat", "make_scene", "side_chain_rows"]


class Scene(NamedTuple):
    """atoms: [F, R, MAX_ATOMS, 3], nm. near, valid: nearest residues of each and which count [F, R, K].

    there [R, MAX_ATOMS]: atoms that a residue has. kind [R]. before, after [R]: the residues that it is bonded
    to, itself where it is not. rigid: distance, angle and fixed dihedral of every slot, as ``atoms``.
    """

    atoms: Tensor
    near: Tensor
    valid: Tensor
    there: Tensor
    kind: Tensor
    before: Tensor
    after: Tensor
    rigid: Tensor | None = None


def make_scene(
    atoms: Tensor, near: Tensor, valid: Tensor, system: Batch, rigid: Tensor | None = None
) -> Scene:
    """From dense atoms, neighbours and the rigid geometry of all atoms [F, A, 3], if it is to be built on."""
    own = torch.arange(len(system.place), device=atoms.device)
    before = torch.where(system.bonded, system.bead_previous, own)
    after = torch.where(system.leads, system.bead_next, own)
    dense = None if rigid is None else rigid[:, system.atom_index]
    return Scene(atoms, near, valid, system.atom_mask, system.residue_type, before, after, dense)


def backbone_atoms(rigid: Tensor, torsions: Tensor, coarse: Tensor, system: Batch) -> Tensor:
    """Dense atoms with backbone, OXT and CB in place, [F, R, MAX_ATOMS, 3]; the rest lies on CA.

    rigid [F, A, 3], torsions [F, R, N_TORSIONS] (chi is not read), coarse [F, R, 3].
    """
    turn = torsions[:, system.bead_of, system.role.clamp_max(N_TORSIONS - 1)]
    phi = torch.where(system.role < N_TORSIONS, turn, rigid[..., 2])
    internal = torch.cat([rigid[..., :2], phi.unsqueeze(-1)], -1)
    keep = torch.nonzero(system.backbone).squeeze(-1)
    number = torch.zeros_like(system.role)
    number[keep] = torch.arange(len(keep), device=keep.device)
    anchors = (system.z_parent_index, system.z_grand_index, system.z_great_index)
    anchors = (number[index[keep]] for index in anchors)
    placed = coarse[:, system.bead_of]
    placed[:, keep] = positions_from_internal(
        coarse, internal[:, keep], *anchors, system.level[keep]
    )
    atoms = placed[:, system.atom_index]
    n, ca, c = (atoms[..., k, :] for k in range(3))
    atoms[..., CB, :] = place_atoms(ca, n, c, rigid[:, system.atom_index[:, CB]])
    return atoms


def side_chain_rows(scene: Scene, chi: Tensor, frame: Tensor, residue: Tensor) -> Tensor:
    """Atoms of rows (frame, residue) [n] with torsions chi [n, N_CHI]: [n, MAX_ATOMS, 3]."""
    backbone = scene.atoms[frame, residue, :CB]
    return place_side_chains(backbone, scene.kind[residue], scene.rigid[frame, residue], chi)


def add_side_chains(scene: Scene, atoms: Tensor, frame: Tensor, residue: Tensor) -> None:
    """Take the side chains of rows from ``atoms`` [n, MAX_ATOMS, 3]."""
    scene.atoms[frame, residue, SIDE] = atoms[:, SIDE]


def flat(atoms: Tensor, system: Batch) -> Tensor:
    """Positions [F, A, 3] from dense atoms [F, R, MAX_ATOMS, 3]."""
    return atoms.flatten(1, 2)[:, system.bead_of * MAX_ATOMS + system.slot]
