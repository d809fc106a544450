"""Distributions of rotatable torsions: equal bins, uniform inside a bin.

Such a density has as many modes as the data ask for and an exact value in nats per radian. The number of
bins is that of the logits.
"""

import math

import torch
from torch import Tensor

__all__ = [
    "angle_of_mode",
    "bin_of",
    "centres",
    "draw",
    "harmonics",
    "log_density",
    "well",
    "without",
]

TOLERANCE = 2.0
"""Concentration of the kernel of `angle_of_mode`: about 40 degrees wide, as a rotamer is."""

WELL = math.pi / 3
"""What belongs to one rotamer, either way of its middle."""


def centres(bins: int, like: Tensor) -> Tensor:
    """Centres of the bins, rad [bins]."""
    steps = torch.arange(bins, device=like.device, dtype=like.dtype)
    return (steps + 0.5) * (2 * math.pi / bins) - math.pi


def bin_of(angle: Tensor, bins: int | Tensor) -> Tensor:
    """Bin of an angle in rad (any branch), int64; ``bins``: how many there are, or for each how many."""
    return ((angle + math.pi) * (bins / (2 * math.pi))).floor().long() % bins


def harmonics(angle: Tensor, count: int) -> Tensor:
    """Cosines and sines of 1 to ``count`` times the angle: [..., 2 count]."""
    turns = angle.unsqueeze(-1) * torch.arange(1, count + 1, device=angle.device)
    return torch.cat([turns.cos(), turns.sin()], -1)


def log_density(logits: Tensor, angle: Tensor) -> Tensor:
    """Log density (nats, per rad) of angles [...] under logits [..., bins]."""
    bins = logits.shape[-1]
    chosen = logits.log_softmax(-1).gather(-1, bin_of(angle, bins).unsqueeze(-1)).squeeze(-1)
    return chosen - math.log(2 * math.pi / bins)


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """The exact sample that standard-normal ``noise`` [...] stands for: inversion of the CDF; rad."""
    bins = logits.shape[-1]
    cumulative = logits.softmax(-1).cumsum(-1)
    level = torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6) * cumulative[..., -1]
    chosen = torch.searchsorted(cumulative, level.unsqueeze(-1)).clamp_max(bins - 1)
    upper = cumulative.gather(-1, chosen)
    lower = torch.where(chosen > 0, cumulative.gather(-1, (chosen - 1).clamp_min(0)), 0.0)
    share = (level.unsqueeze(-1) - lower) / (upper - lower).clamp_min(1e-12)
    share = share.clamp(0, 1 - 1e-6)
    found: Tensor = ((chosen + share) * (2 * math.pi / bins) - math.pi).squeeze(-1)
    return found


def angle_of_mode(logits: Tensor) -> Tensor:
    """The angle with most probability around it, drawn to the mean of what is there; rad.

    Around it means under a von Mises kernel of concentration `TOLERANCE`: a broad rotamer wins over a
    narrow spike of less weight.
    """
    probability = logits.softmax(-1)
    angle = centres(logits.shape[-1], logits)
    kernel = torch.exp(TOLERANCE * (torch.cos(angle.unsqueeze(0) - angle.unsqueeze(1)) - 1))
    best = (probability @ kernel).argmax(-1)
    weight = probability * kernel[best]
    return torch.atan2((weight * angle.sin()).sum(-1), (weight * angle.cos()).sum(-1))


def without(logits: Tensor, angle: Tensor) -> Tensor:
    """Logits [..., bins] with what is within `WELL` of an angle [...] left out."""
    apart = torch.cos(centres(logits.shape[-1], logits) - angle.unsqueeze(-1))
    return torch.where(apart > math.cos(WELL), logits - 30.0, logits)


def well(logits: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Probability within `WELL` of an angle [...] under logits [..., bins], and its spread there, rad."""
    bins = logits.shape[-1]
    apart = centres(bins, logits) - angle.unsqueeze(-1)
    apart = torch.atan2(apart.sin(), apart.cos())
    inside = logits.softmax(-1).masked_fill(apart.abs() > WELL, 0.0)
    weight = inside.sum(-1).clamp_min(1e-12)
    within = (2 * math.pi / bins) ** 2 / 12
    return weight, ((inside * apart.square()).sum(-1) / weight + within).sqrt()
