"""A structure in dense slots, as far as it is known, and its parts put together.

Shapes: F frames, R residues, A heavy atoms, K neighbour residues, n rows (residues of frames).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.internal import place_atoms, positions_from_internal
from hpcbackmap.protein.residues import MAX_ATOMS
from hpcbackmap.protein.side_chain import CB, SIDE, place_side_chains
from hpcbackmap.protein.zmatrix import N_TORSIONS
from hpcbackmap.stages.genzprot.images import Box
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.on_host import places

__all__ = [
    "AWAY",
    "GivenBeads",
    "Scene",
    "add_side_chains",
    "backbone_atoms",
    "flat",
    "make_scene",
    "neighbour_atoms",
    "side_chain_rows",
    "squared_distances",
]

AWAY = 1000.0
"""Where atoms that do not exist are put, nm."""


class GivenBeads(NamedTuple):
    """Side-chain beads that the input holds. position: nm, NaN where there is none [F, R, M, 3].

    shares: of each atom slot in each bead [R, M, MAX_ATOMS]. tolerance: nm, their standard deviation.
    """

    position: Tensor
    shares: Tensor
    tolerance: float


class Scene(NamedTuple):
    """atoms: [F, R, MAX_ATOMS, 3], nm; those that a residue lacks lie at `AWAY`.

    near: nearest residues of each [F, R, K]; valid: which count, None where all do.
    there [R, MAX_ATOMS]: atoms that a residue has. kind [R]. before, after [R]: the residues that it is bonded
    to, itself where it is not. rigid: distance, angle and fixed dihedral of every slot, as ``atoms``. beads:
    side-chain beads that the input holds (`restraints.GivenBeads`), if any. shift, box: what brings each of
    ``near`` to the image that is near, [F, R, K, 3], and the periodic box; None without one. bias: biases of
    the logits of chi torsions [R, N_CHI, BINS], of one protein.
    """

    atoms: Tensor
    near: Tensor
    valid: Tensor | None
    there: Tensor
    kind: Tensor
    before: Tensor
    after: Tensor
    rigid: Tensor | None = None
    beads: GivenBeads | None = None
    shift: Tensor | None = None
    box: Box | None = None
    bias: Tensor | None = None


def make_scene(
    atoms: Tensor,
    near: Tensor,
    valid: Tensor | None,
    system: ResidueSystem,
    rigid: Tensor | None = None,
) -> Scene:
    """From dense atoms, neighbours and the rigid geometry of all atoms [F, A, 3], if it is to be built on."""
    own = torch.arange(len(system.place), device=atoms.device)
    before = torch.where(system.bonded, system.bead_previous, own)
    after = torch.where(system.leads, system.bead_next, own)
    dense = None if rigid is None else rigid[:, system.atom_index]
    atoms = atoms.masked_fill(~system.atom_mask.unsqueeze(-1), AWAY)
    if min(system.coarse_sizes) > near.shape[-1]:
        valid = None
    return Scene(atoms, near, valid, system.atom_mask, system.residue_type, before, after, dense)


def backbone_atoms(
    rigid: Tensor, torsions: Tensor, coarse: Tensor, system: ResidueSystem
) -> Tensor:
    """Dense atoms with backbone, OXT and CB in place, [F, R, MAX_ATOMS, 3]; the rest lies on CA.

    rigid [F, A, 3], torsions [F, R, N_TORSIONS] (chi is not read), coarse [F, R, 3].
    """
    turn = torsions[:, system.bead_of, system.role.clamp_max(N_TORSIONS - 1)]
    phi = torch.where(system.role < N_TORSIONS, turn, rigid[..., 2])
    internal = torch.cat([rigid[..., :2], phi.unsqueeze(-1)], -1)
    (keep,) = places(system.backbone, sum(system.levels))
    number = torch.zeros_like(system.role)
    number[keep] = torch.arange(len(keep), device=keep.device)
    indices = (system.z_parent_index, system.z_grand_index, system.z_great_index)
    parent, grandparent, great = (number[index[keep]] for index in indices)
    placed = coarse[:, system.bead_of]
    placed[:, keep] = positions_from_internal(
        coarse,
        internal[:, keep],
        parent,
        grandparent,
        great,
        system.level[keep],
        system.levels,
    )
    atoms = placed[:, system.atom_index]
    n, ca, c = (atoms[..., k, :] for k in range(3))
    atoms[..., CB, :] = place_atoms(ca, n, c, rigid[:, system.atom_index[:, CB]])
    return atoms


def side_chain_rows(scene: Scene, chi: Tensor, frame: Tensor, residue: Tensor) -> Tensor:
    """Atoms of rows (frame, residue) [n] with torsions chi [n, N_CHI]: [n, MAX_ATOMS, 3]."""
    assert scene.rigid is not None, "a scene to build on"
    backbone = scene.atoms[frame, residue, : CB + 1]
    atoms = place_side_chains(backbone, scene.kind[residue], scene.rigid[frame, residue], chi)
    return atoms.masked_fill_(~scene.there[residue].unsqueeze(-1), AWAY)


def neighbour_atoms(scene: Scene, frame: Tensor, residue: Tensor) -> Tensor:
    """Atoms of the neighbours of rows (frame, residue) [n], or `AWAY`: [n, K * MAX_ATOMS, 3]."""
    atoms = scene.atoms[frame.unsqueeze(1), scene.near[frame, residue]]
    if scene.shift is not None:
        atoms = atoms + scene.shift[frame, residue].unsqueeze(-2)
    if scene.valid is not None:
        atoms.masked_fill_(~scene.valid[frame, residue][..., None, None], AWAY)
    return atoms.flatten(1, 2)


def squared_distances(points: Tensor, centre: Tensor) -> Tensor:
    """Squared distances [n, m] of points [n, m, 3] from centres [n, 3]; by component, which is fast."""
    total = (points[..., 0] - centre[:, :1]).square_()
    for k in (1, 2):
        gap = points[..., k] - centre[:, k : k + 1]
        total.addcmul_(gap, gap)
    return total


def add_side_chains(scene: Scene, atoms: Tensor, frame: Tensor, residue: Tensor) -> None:
    """Take the side chains of rows from ``atoms`` [n, MAX_ATOMS, 3]."""
    scene.atoms[frame, residue, SIDE] = atoms[:, SIDE]


def flat(atoms: Tensor, system: ResidueSystem) -> Tensor:
    """Positions [F, A, 3] from dense atoms [F, R, MAX_ATOMS, 3]."""
    return atoms.flatten(1, 2)[:, system.bead_of * MAX_ATOMS + system.slot]
