"""Where C(i) and N(i+1) lie relative to the C-alpha pair that they bridge.

The peptide link is planar with bonds CA-C 0.1525, C-N 0.1329, N-CA 0.1458 nm and angles CA-C-N 116.2,
C-N-CA 121.7 degrees (trans; Engh & Huber 1991), 118.0 and 126.0 for cis. A C-alpha distance that differs
from the ideal one is absorbed by both angles equally, as far as +-15 degrees go, so that the C-N bond
keeps its length.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.protein.residues import CIS_BORDER

__all__ = ["link_angles"]

CA_C, C_N, N_CA = 0.1525, 0.1329, 0.1458
ANGLES_DEGREES = {"trans": (116.2, 121.7), "cis": (118.0, 126.0)}
_GRID = 512


@cache
def _table(kind: str, dtype: torch.dtype, device: torch.device) -> tuple[float, float, Tensor]:
    """Smallest and largest C-alpha distance, and the two angles on an even grid between them, [_GRID, 2]."""
    strain = np.radians(np.linspace(-15, 15, 4001))
    at_c, at_n = (np.radians(value) + strain for value in ANGLES_DEGREES[kind])
    side = 1.0 if kind == "trans" else -1.0
    c = np.stack([np.full_like(strain, 0.0), np.zeros_like(strain)], -1)
    n = np.stack([np.full_like(strain, C_N), np.zeros_like(strain)], -1)
    start = c + CA_C * np.stack([np.cos(at_c), np.sin(at_c)], -1)
    end = n + N_CA * np.stack([-np.cos(at_n), -side * np.sin(at_n)], -1)
    length = np.linalg.norm(end - start, axis=-1)
    first = _angle(c - start, end - start)
    second = _angle(n - end, start - end)
    grid = np.linspace(length[0], length[-1], _GRID)
    angles = np.stack([np.interp(grid, length, first), np.interp(grid, length, second)], -1)
    return float(length[0]), float(length[-1]), torch.as_tensor(angles, dtype=dtype, device=device)


def _angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.arccos(
        (u * v).sum(-1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
    )
    return found


def link_angles(length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles C-CA-CA' and N'-CA'-CA in rad, and whether the link is cis, for C-alpha distances in nm."""
    cis = length < CIS_BORDER
    angles = torch.where(cis.unsqueeze(-1), _look_up(length, "cis"), _look_up(length, "trans"))
    return angles[..., 0], angles[..., 1], cis


def _look_up(length: Tensor, kind: str) -> Tensor:
    low, high, values = _table(kind, length.dtype, length.device)
    place = ((length - low) / (high - low) * (_GRID - 1)).clamp(0, _GRID - 1.001)
    left = place.floor().long()
    share = (place - left).unsqueeze(-1)
    return values[left] * (1 - share) + values[left + 1] * share
