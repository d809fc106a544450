"""Distributions of rotatable torsions: 36 bins of 10 degrees, uniform inside a bin.

Such a density has as many modes as the data ask for and an exact value in nats per radian.
"""

import math

import torch
from torch import Tensor

__all__ = ["BINS", "angle_of_mode", "bin_of", "draw", "log_density"]

BINS = 36
WIDTH = 2 * math.pi / BINS


def bin_of(angle: Tensor) -> Tensor:
    """Bin of an angle in rad (any branch), int64."""
    return ((angle + math.pi) / WIDTH).floor().long() % BINS


def log_density(logits: Tensor, angle: Tensor) -> Tensor:
    """Log density (nats, per rad) of angles [...] under logits [..., BINS]."""
    chosen = logits.log_softmax(-1).gather(-1, bin_of(angle).unsqueeze(-1)).squeeze(-1)
    return chosen - math.log(WIDTH)


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """The exact sample that standard-normal ``noise`` [...] stands for: inversion of the CDF; rad."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    level = torch.special.ndtr(noise.double()).clamp(1e-9, 1 - 1e-9) * cumulative[..., -1]
    chosen = torch.searchsorted(cumulative, level.unsqueeze(-1)).clamp_max(BINS - 1)
    upper = cumulative.gather(-1, chosen)
    lower = torch.where(chosen > 0, cumulative.gather(-1, (chosen - 1).clamp_min(0)), 0.0)
    share = (level.unsqueeze(-1) - lower) / (upper - lower).clamp_min(1e-12)
    return ((chosen + share) * WIDTH - math.pi).squeeze(-1).to(logits.dtype)


def angle_of_mode(logits: Tensor) -> Tensor:
    """Centre of the most likely bin, drawn to the mean of it and its two neighbours; rad."""
    probability = logits.softmax(-1)
    smooth = probability + probability.roll(1, -1) + probability.roll(-1, -1)
    best = smooth.argmax(-1, keepdim=True)
    offsets = torch.arange(-1, 2, device=logits.device)
    weight = probability.gather(-1, (best + offsets) % BINS)
    shift = (weight * offsets).sum(-1) / weight.sum(-1)
    angle = (best.squeeze(-1) + 0.5 + shift) * WIDTH - math.pi
    return torch.atan2(angle.sin(), angle.cos())
