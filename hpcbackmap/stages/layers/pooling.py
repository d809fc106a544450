"""Sums of particles over beads and of beads over molecules."""

import torch
from torch import Tensor

from hpcbackmap.stages.system import System

__all__ = ["bead_sums", "system_sums"]


def bead_sums(values: Tensor, system: System) -> Tensor:
    """Sums over the members of each bead: [F, N, ...] to [F, B, ...]."""
    return _sums(values, system.bead_of, system.n_coarse)


def system_sums(values: Tensor, system: System) -> Tensor:
    """Sums over the beads of each molecule: [F, B] to [F, S]."""
    return _sums(values, system.coarse_system, system.n_systems)


def _sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    shape = (values.shape[0], count, *values.shape[2:])
    total = torch.zeros(shape, dtype=values.dtype, device=values.device)
    return total.index_add(1, groups, values)
