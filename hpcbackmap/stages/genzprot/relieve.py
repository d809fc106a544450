"""Peptide planes turned out of other planes of the fold, before there are side chains.

Planes are drawn given their neighbours along the chain alone; where the chain folds back, an oxygen can come to
lie on another one, which no side chain mends. Such a plane takes the rotation that is cheapest by what the
network finds likely, how far it turns, and how deep its O and N reach into backbone atoms of other residues.

Shapes: F frames, R residues, K neighbour residues, n rows (planes of frames), BINS rotations.
"""

import math

import torch
from torch import Tensor

from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.side_chain import CB
from hpcbackmap.stages.genzprot.clashes import RADIUS
from hpcbackmap.stages.genzprot.dense_atoms import Scene
from hpcbackmap.stages.genzprot.plane_tables import AngleTables, ones_cos_sin
from hpcbackmap.stages.genzprot.planes import BINS, PlaneHead
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.genzprot.torsions import centres

__all__ = ["relieve"]

OXYGEN = BACKBONE.index("O")
ATOMS = CB + 1
"""Backbone atoms of a residue and its CB, by slot."""
REACH = tuple(RADIUS["O"] + RADIUS[name] for name in ("N", "C", "C", "O", "C"))
"""nm; O or N of a plane and these atoms touch below."""
SOFTNESS = 0.01
"""Overlap (nm) that costs one nat."""
WIDTH = math.radians(25.0)
"""A turn by so much costs half a nat."""


def relieve(
    head: PlaneHead,
    h: Tensor,
    planes: Tensor,
    scene: Scene,
    tables: AngleTables,
    system: ResidueSystem,
) -> Tensor:
    """``planes`` [F, R], those that press on others turned; h [F, R, W]; scene: the backbone that they make."""
    atoms = scene.atoms[:, :, :ATOMS].clone()
    for parity in (0, 1):
        turning = system.leads & (system.place % 2 == parity)
        depth = _depth(atoms[:, :, OXYGEN].unsqueeze(2), *_others(atoms, scene))
        rows = torch.nonzero((depth[..., 0] > 0) & turning, as_tuple=True)
        if len(rows[0]) == 0:
            continue
        likely = head.given_others(h, planes, tables, system, rows).log_softmax(-1)
        angles = centres(BINS, planes)
        swept = ones_cos_sin(angles)
        oxygen, nitrogen = (torch.einsum("bk,nkx->nbx", swept, x[rows]) for x in tables.links)
        others = _others(atoms, scene, rows)
        pressed = _depth(oxygen, *others) + _depth(nitrogen, *others)
        turn = angles - planes[rows].unsqueeze(-1)
        turn = torch.atan2(turn.sin(), turn.cos())
        cost = pressed / SOFTNESS - likely + 0.5 * (turn / WIDTH).square()
        best = cost.argmin(-1)
        number = torch.arange(len(best), device=best.device)
        planes = planes.index_put(rows, angles[best].to(planes))
        atoms[rows[0], rows[1], OXYGEN] = oxygen[number, best].to(atoms)
    return planes


def _others(
    atoms: Tensor, scene: Scene, rows: tuple[Tensor, ...] | None = None
) -> tuple[Tensor, Tensor]:
    """Backbone atoms about planes ``rows``, or all [F, R]: [..., K, ATOMS, 3]; which residues count [..., K].

    Residues that a plane belongs to or is bonded to do not: their contacts are part of the planes' prior.
    """
    frame = torch.arange(len(atoms), device=atoms.device).view(-1, 1, 1)
    residue = torch.arange(atoms.shape[1], device=atoms.device).view(1, -1)
    near, valid = scene.near, scene.valid
    if rows is not None:
        frame, residue = rows[0].unsqueeze(-1), rows[1]
        near, valid = near[rows], None if valid is None else valid[rows]
    apart = near - residue.unsqueeze(-1)
    counts = (apart < -1) | (apart > 2)
    if valid is not None:
        counts = counts & valid
    return atoms[frame, near], counts


def _depth(points: Tensor, others: Tensor, counts: Tensor) -> Tensor:
    """How far points [..., B, 3] reach into ``others`` (see `_others`): nm, summed, [..., B]."""
    shape = (*counts.shape, ATOMS)
    reach = torch.tensor(REACH, dtype=points.dtype, device=points.device).expand(shape)
    reach = torch.where(counts.unsqueeze(-1), reach, -1.0).flatten(-2)
    gap = points.unsqueeze(-2) - others.flatten(-3, -2).unsqueeze(-3)
    found: Tensor = (reach.unsqueeze(-2) - gap.norm(dim=-1)).clamp_min(0).sum(-1)
    return found
