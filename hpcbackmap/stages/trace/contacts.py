"""C-alpha traces whose residues have room: side chains, not drawn yet, are taken as their expected centroids.

A centroid lies along the bisector of the two links of its C-alpha atom and across them, so far as side chains
of its type do on the average. Shapes as in `stages.base`; K neighbours in space.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.stages.layers.geometry import gather
from hpcbackmap.stages.trace.system import TraceSystem

__all__ = ["push_apart"]

CENTROIDS = {
    "ALA": (0.111, -0.096), "ARG": (0.312, -0.159), "ASN": (0.193, -0.094), "ASP": (0.187, -0.101),
    "CYS": (0.168, -0.088), "GLN": (0.251, -0.110), "GLU": (0.241, -0.129), "GLY": (0.0, 0.0),
    "HIS": (0.231, -0.080), "ILE": (0.198, -0.095), "LEU": (0.227, -0.081), "LYS": (0.282, -0.126),
    "MET": (0.243, -0.099), "PHE": (0.248, -0.077), "PRO": (0.074, -0.137), "SER": (0.126, -0.118),
    "THR": (0.156, -0.099), "TRP": (0.284, -0.060), "TYR": (0.267, -0.080), "VAL": (0.169, -0.079),
}  # fmt: skip
"""Of side-chain heavy atoms from C-alpha, nm: outwards along the bisector, and along the normal of the plane of
three C-alpha atoms; means over training chains (`benchmarks/recipes/side_chain_centroids.py`)."""
CALPHAS, MIXED, SIDE_CHAINS = 0.44, 0.38, 0.34
"""Distances (nm) of two C-alpha atoms, of one and a centroid, and of two centroids that are far apart along the
chain; about one residue in thirty of the training chains has a nearer one of each kind."""


def push_apart(trace: Tensor, system: TraceSystem, near: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Moves [F, N, 3] that take residues of ``trace`` out of each other's room, half of what is missing each.

    near: index and validity of neighbours [F, N, K], as `near_residues` finds them.
    """
    index, valid = near[0], near[1].to(trace.dtype)
    sides = trace + _centroids(trace, system)
    own = _away(trace, gather(trace, index), valid, CALPHAS)
    own = own + _away(sides, gather(sides, index), valid, SIDE_CHAINS)
    own = own + _away(sides, gather(trace, index), valid, MIXED)
    return own + _away(trace, gather(sides, index), valid, MIXED)


def _away(points: Tensor, others: Tensor, valid: Tensor, apart: float) -> Tensor:
    """Half of what each of points [F, N, 3] lacks of being ``apart`` from others [F, N, K, 3], summed."""
    gap = points.unsqueeze(2) - others
    distance = gap.norm(dim=-1).clamp_min(1e-4)
    missing = 0.5 * (apart - distance).clamp_min(0) * valid / distance
    found: Tensor = (missing.unsqueeze(-1) * gap).sum(2)
    return found


def _centroids(trace: Tensor, system: TraceSystem) -> Tensor:
    """Of the side chains from their C-alpha atoms, [F, N, 3]."""
    table = torch.tensor([CENTROIDS[name] for name in RESIDUES], dtype=trace.dtype)
    along = system.residue_features[:, : len(RESIDUES)] @ table.to(trace.device)
    back = trace - trace[:, system.before_index]
    ahead = trace[:, system.after_index] - trace
    bisector = normalize(back - ahead, dim=-1)
    normal = normalize(torch.linalg.cross(back, ahead), dim=-1)
    return bisector * along[:, :1] + normal * along[:, 1:]
