"""Which links before prolines are cis, told from beads: by distances among two residues before and after each.

The network that places C-alpha atoms puts both ends of a cis link about as far apart as those of a trans one,
so their distance alone tells half of them at best. A logistic regression on the distances of all beads and
placed C-alpha atoms around a proline tells eight or nine of ten. Shapes: F frames, R residues; nm.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hpcbackmap.stages.sealed import read_sealed

__all__ = ["AROUND", "PARTS", "distances_around", "proline_odds", "prolines_within"]

WEIGHTS = Path(__file__).parents[2] / "weights" / "calpha" / "cis-prolines.safetensors"
AROUND = 2
"""Residues before and after a proline that are looked at; all must be bonded."""
PARTS = ("mean", "scale", "weight", "bias")
"""Tensors of each kind of beads."""


def proline_odds(
    role: str, beads: Tensor, calpha: Tensor, bonded: Tensor, proline: Tensor
) -> Tensor:
    """Log odds that the link before each residue is cis, nats [F, R]; NaN where it is not looked at.

    role: kind of the beads [F, R, S, 3], as of the network that has placed ``calpha`` [F, R, 3]; bonded [R]: to
    the residue before; proline [R].
    """
    odds = calpha.new_full(calpha.shape[:2], torch.nan)
    chosen = prolines_within(bonded, proline)
    if len(chosen):
        mean, scale, weight, bias = _regression(role)
        seen = distances_around(beads, calpha, chosen)
        odds[:, chosen] = ((seen - mean) / scale) @ weight + bias
    return odds


def prolines_within(bonded: Tensor, proline: Tensor) -> Tensor:
    """Prolines with `AROUND` bonded residues on either side, int64."""
    n = len(bonded)
    steps = torch.arange(1 - AROUND, AROUND + 1)
    inside = torch.nonzero(proline).squeeze(-1)
    inside = inside[(inside >= AROUND) & (inside < n - AROUND)]
    return inside[bonded[inside.unsqueeze(-1) + steps].all(-1)]


def distances_around(beads: Tensor, calpha: Tensor, residues: Tensor) -> Tensor:
    """Distances among all points of each residue and those `AROUND` it: [F, len(residues), pairs]."""
    points = torch.cat([beads, calpha.unsqueeze(2)], 2)
    window = residues.unsqueeze(-1) + torch.arange(-AROUND, AROUND + 1)
    seen = points[:, window].flatten(2, 3)
    first, second = torch.triu_indices(seen.shape[2], seen.shape[2], 1)
    found: Tensor = (seen[:, :, first] - seen[:, :, second]).norm(dim=-1)
    return found


@cache
def _regression(role: str) -> tuple[Tensor, ...]:
    weights, _ = read_sealed(WEIGHTS)
    return tuple(weights[f"{role}.{part}"] for part in PARTS)
