"""Which standard normals of a residue's noise stand for what."""

import torch
from torch import Tensor

from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import N_TORSIONS
from hpcbackmap.stages.genzprot.partners import DRAWN
from hpcbackmap.stages.genzprot.system import ResidueSystem

__all__ = [
    "AGAIN",
    "DRAWS",
    "LEVEL",
    "RANK",
    "SHIFT",
    "TORSIONS",
    "member_width",
    "order",
    "partner_columns",
    "redraw_columns",
]

PARITY, RANK, SHIFT, LEVEL = 0, 1, slice(2, 5), 5
"""Columns of the noise of `elbo` and `loss`: which planes come first, order of side chains, displacement of
the C-alpha atoms in training and its size (of the first residue)."""
AGAIN = slice(3, 6)
"""Columns of the noise of a member, which displaces nothing: for planes once more, then twice at outliers."""
DRAWS = 6
"""From this column on, noise is for draws: of all torsions, of each chi in each redraw, and of partners."""
TORSIONS = slice(DRAWS, DRAWS + N_TORSIONS)


def order(noise: Tensor, system: ResidueSystem) -> tuple[Tensor, Tensor]:
    """Planes that come first [F, R] (all even or all odd ones of a molecule) and rank of side chains [F, R]."""
    odd = noise[:, system.first_bead[system.coarse_system], PARITY] > 0
    rank = torch.special.ndtr(noise[..., RANK]).clamp(0, 1 - 1e-6)
    return (system.place % 2 == 1) == odd, rank


def redraw_columns(noise: Tensor, redraws: int) -> Tensor:
    """What side chains draw again by: [F, R, redraws, N_CHI]."""
    return _chi_columns(noise, TORSIONS.stop, redraws)


def partner_columns(noise: Tensor, redraws: int) -> tuple[Tensor, Tensor]:
    """What polar side chains draw by for a partner [F, R, DRAWN, N_CHI], and choose by [F, R]."""
    begin = TORSIONS.stop + N_CHI * redraws
    return _chi_columns(noise, begin, DRAWN), noise[..., begin + N_CHI * DRAWN]


def member_width(redraws: int) -> int:
    """Columns of the noise of a member."""
    return TORSIONS.stop + N_CHI * (redraws + DRAWN) + 1


def _chi_columns(noise: Tensor, begin: int, times: int) -> Tensor:
    columns: Tensor = noise[..., begin : begin + N_CHI * times].unflatten(-1, (times, N_CHI))
    return columns
