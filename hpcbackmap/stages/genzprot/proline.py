"""What the ring of a proline asks of the two planes at it: a phi that leaves CD room beside C and O before it.

The ring holds CD near the plane of N, CA and CB, so that phi says how C, N, CA and CD lie to each other. Beyond
what is seen CD comes to lie on the carbonyl before it, which no turn of the ring mends.

Shapes: F frames, R residues, n rows (planes of frames), P prolines, BINS rotations.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hpcbackmap.stages.genzprot.plane_tables import AngleTables, dihedral
from hpcbackmap.stages.genzprot.system import ResidueSystem
from hpcbackmap.stages.layers.on_host import places

if TYPE_CHECKING:
    from hpcbackmap.stages.genzprot.planes import Places

__all__ = ["add_ring_strain"]

MIDDLE, HALF = math.radians(-69.0), math.radians(31.0)
"""Phi of 99 % of the 4,600 trans-prolines of the training structures lies so far from the middle at most."""
SOFTNESS = math.radians(8.0)
"""What costs half a nat beyond."""


def add_ring_strain(
    nats: Tensor,
    turned: Tensor,
    bins: Tensor,
    tables: AngleTables,
    at: "Places",
    system: ResidueSystem,
) -> Tensor:
    """``nats`` [F, R, BINS], or of rows [n, BINS], and what each rotation costs by the prolines at both ends.

    turned [F, R, 3] and bins [BINS, 3]: 1, cosine and sine of the planes and of every bin.
    """
    for is_behind in (False, True):
        frame, which, residue, dimension = _planes_at_prolines(at, is_behind, system)
        if not len(residue):
            continue
        before, after = (
            turned[frame, x].unsqueeze(-2) for x in (system.bead_previous[residue], residue)
        )
        before, after = (bins, after) if is_behind else (before, bins)
        phi = _phi(before, after, frame, residue, tables, system)
        away = torch.atan2((phi - MIDDLE).sin(), (phi - MIDDLE).cos()).abs()
        cost = 0.5 * ((away - HALF).clamp_min(0) / SOFTNESS).square()
        there = (system.bonded & system.leads)[residue].unsqueeze(-1)
        nats = nats.index_add(dimension, which, cost * there)
    return nats


def _planes_at_prolines(
    at: "Places", is_behind: bool, system: ResidueSystem
) -> tuple[Tensor | slice, Tensor, Tensor, int]:
    """Frame, place among the planes ``at``, proline and dimension of the places, of each plane there."""
    frame, own = at.own
    if isinstance(frame, Tensor) and isinstance(own, Tensor):
        ends = system.bead_next[own] if is_behind else own
        which = torch.nonzero(system.proline[ends]).squeeze(-1)
        return frame[which], which, ends[which], 0
    (residue,) = places(system.proline, *system.rings)
    return frame, system.bead_previous[residue] if is_behind else residue, residue, 1


def _phi(
    before: Tensor,
    after: Tensor,
    frame: Tensor | slice,
    residue: Tensor,
    tables: AngleTables,
    system: ResidueSystem,
) -> Tensor:
    """Phi of residues [P] with planes before and after at rotations [..., 1 or BINS, 3]: [..., BINS]."""
    previous = system.bead_previous[residue]
    carbonyl, nitrogen, carbon = (
        torch.einsum("...bk,...kx->x...b", plane, x[frame, there].detach())
        for plane, x, there in (
            (before, tables.carbon, previous),
            (before, tables.nitrogen, previous),
            (after, tables.carbon, residue),
        )
    )
    calpha = tables.calpha[frame, residue].detach().movedim(-1, 0).unsqueeze(-1)
    return dihedral(nitrogen - carbonyl, calpha - nitrogen, carbon - calpha)
