"""Side chains that run into other residues."""

import torch
from torch import Tensor
from torch_geometric.data import Batch

__all__ = ["residues_in_contact"]


def residues_in_contact(positions: Tensor, system: Batch, index: Tensor, valid: Tensor) -> Tensor:
    """Residues whose rotatable side-chain atoms are too close to another residue: bool [F, R].

    positions [F, A, 3], nm; index, valid [F, R, K]: the residues to compare with. Too close is below the
    sum of the contact radii; sulphur pairs are left out, they may be disulphides.
    """
    atoms = system.atom_index
    moves = system.movable[atoms] & system.atom_mask
    rows = torch.nonzero(moves.any(-1)).squeeze(-1)
    if len(rows) == 0:
        return torch.zeros(
            positions.shape[0], len(atoms), dtype=torch.bool, device=positions.device
        )
    dense = positions[:, atoms]
    radius = torch.where(system.atom_mask, system.radius[atoms], -10.0)
    sulphur = system.sulphur[atoms]
    hit = torch.zeros(dense.shape[:2], dtype=torch.bool, device=positions.device)
    for frame in range(len(dense)):
        near = index[frame, rows]
        gap = torch.cdist(dense[frame, rows], dense[frame, near].flatten(1, 2))
        reach = radius[rows].unsqueeze(-1) + radius[near].flatten(1, 2).unsqueeze(1)
        bridge = sulphur[rows].unsqueeze(-1) & sulphur[near].flatten(1, 2).unsqueeze(1)
        counts = valid[frame, rows].repeat_interleave(atoms.shape[1], dim=-1).unsqueeze(1)
        close = (gap < reach) & ~bridge & counts & moves[rows].unsqueeze(-1)
        hit[frame, rows] = close.flatten(1).any(-1)
    return hit
