"""The nearest possible C-alpha trace: links that a peptide can span, angles that a chain can have.

Position-based constraints (Mueller et al. 2007): each link or angle out of bounds moves its two atoms half
way, the moves of an atom are averaged. What is within bounds stays where it is. Shapes: F frames, R
residues; nm.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hpcbackmap.protein.residues import CIS, TRANS

__all__ = [
    "IDEAL",
    "POSSIBLE",
    "Bounds",
    "cis_links",
    "close_links",
    "lasting_cis_links",
    "link_spread",
]


class Bounds(NamedTuple):
    """Of the distance of C-alpha atoms one trans link, one cis link and two links apart, nm."""

    trans: tuple[float, float]
    cis: tuple[float, float]
    angle: tuple[float, float]


POSSIBLE = Bounds((0.341, 0.418), (0.247, 0.34), (0.0, 1.0))
"""What a peptide spans with a C-N bond of 0.12 to 0.15 nm: 0.352 to 0.4015 and 0.26 to 0.335 with the ideal one
(`protein.peptide`). Frames of atoms, which go up to 0.417, are not moved.
"""
IDEAL = Bounds((0.376, 0.385), (0.285, 0.305), (0.50, 0.73))
"""What crystals have; angles of 82 to 148 degrees."""
CIS_ANGLE = (0.43, 0.66)
"""The same over two links of which one is cis."""
ITERATIONS, CHECK, TOLERANCE = 400, 10, 0.0005
LEAST_SPREAD = 0.006
MEDIAN = 1.25
"""Standard deviation of a median by that of a mean."""
MOST_FRAMES = 16
"""Frames of a trajectory that count as independent of each other."""
ODDS = {True: 0.05, False: 0.0005}
"""Share of links that are cis: before proline, and before the others."""


def link_spread(calpha: Tensor, bonded: Tensor) -> Tensor:
    """Robust standard deviation of the trans links of each frame, nm [F]; 0 without links."""
    length = _lengths(calpha, bonded)
    if not length.shape[1]:
        return calpha.new_zeros(len(calpha))
    typical = length.median(1, keepdim=True).values
    return 1.4826 * (length - typical).abs().median(1).values


def cis_links(calpha: Tensor, bonded: Tensor, proline: Tensor, spread: Tensor) -> Tensor:
    """Links to the residue before that are cis on purpose, bool [F, R]; calpha [F, R, 3], bonded, proline [R].

    By odds: a link of this length is likelier cis than a trans one that fluctuates by ``spread`` [F].
    """
    return _likelier_cis(_link_lengths(calpha, bonded), bonded, proline, spread)


def lasting_cis_links(calpha: Tensor, bonded: Tensor, proline: Tensor, scatter: float) -> Tensor:
    """Links that are cis throughout frames [F, R, 3] whose links fluctuate by ``scatter``, nm: bool [R].

    What a single frame cannot tell, the median of many does. Noise across a link, which lengthens it by twice
    its variance in the square, is taken off.
    """
    median = _link_lengths(calpha, bonded).quantile(0.5, dim=0, keepdim=True)
    length = (median.square() - 2 * scatter**2).clamp_min(0).sqrt()
    spread = length.new_full((1,), MEDIAN * scatter / min(len(calpha), MOST_FRAMES) ** 0.5)
    return _likelier_cis(length, bonded, proline, spread)[0]


def _link_lengths(calpha: Tensor, bonded: Tensor) -> Tensor:
    """Distance of each residue from the one before, [F, R]; that of a trans link where there is no bond."""
    length = torch.full(calpha.shape[:2], TRANS, dtype=calpha.dtype, device=calpha.device)
    length[:, bonded] = _lengths(calpha, bonded)
    return length


def _likelier_cis(length: Tensor, bonded: Tensor, proline: Tensor, spread: Tensor) -> Tensor:
    share = torch.where(proline, ODDS[True], ODDS[False]).to(length)
    sigma = spread.clamp_min(LEAST_SPREAD).unsqueeze(-1)
    nats = ((length - TRANS).square() - (length - CIS).square()) / (2 * sigma.square())
    return bonded & (length < 0.5 * (TRANS + CIS)) & (nats > (1 / share - 1).log())


def close_links(
    calpha: Tensor, bonded: Tensor, cis: Tensor, bounds: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """C-alpha positions [F, R, 3] with every link and angle within its bounds.

    bonded [R]: to the residue before. cis [F, R]. bounds [F, 3, 2]: `Bounds` of each frame. A frame without
    violations is left alone; where links and angles contradict each other, links are what is kept.
    """
    second = torch.nonzero(bonded).squeeze(-1)
    if not len(second):
        return calpha
    third = torch.nonzero(bonded[1:] & bonded[:-1]).squeeze(-1) + 1
    trans, with_cis, angle = bounds.unsqueeze(-2).unbind(1)
    low, high = torch.where(cis[:, second].unsqueeze(-1), with_cis, trans).unbind(-1)
    turned = (cis[:, third] | cis[:, third - 1]).unsqueeze(-1) & (angle[..., :1] > 0)
    floor, ceiling = torch.where(turned, angle.new_tensor(CIS_ANGLE), angle).unbind(-1)
    share = _share(second, 1, calpha), _share(third, 2, calpha)
    positions, result = calpha.double(), calpha.clone()
    active = torch.arange(len(calpha), device=calpha.device)
    for step in range(iterations):
        if step % CHECK == 0:
            length = (positions[:, second] - positions[:, second - 1]).norm(dim=-1)
            apart = (positions[:, third] - positions[:, third - 2]).norm(dim=-1)
            off = (length < low - TOLERANCE) | (length > high + TOLERANCE)
            bent = (apart < floor - 10 * TOLERANCE) | (apart > ceiling + 10 * TOLERANCE)
            todo = off.any(1) | bent.any(1)
            if step:
                result[active[~todo]] = positions[~todo].to(result)
            positions, active = positions[todo], active[todo]
            low, high, floor, ceiling = (x[todo] for x in (low, high, floor, ceiling))
            if not len(active):
                return result
        move = _moves(positions, second, 1, low, high) / share[0]
        if step < iterations - 2 * CHECK:
            move = move + 0.5 * _moves(positions, third, 2, floor, ceiling) / share[1]
        positions = positions + 1.5 * move
    result[active] = positions.to(result)
    return result


def _lengths(calpha: Tensor, bonded: Tensor) -> Tensor:
    second = torch.nonzero(bonded).squeeze(-1)
    found: Tensor = (calpha[:, second] - calpha[:, second - 1]).norm(dim=-1)
    return found


def _share(end: Tensor, span: int, like: Tensor) -> Tensor:
    """In how many pairs (end - span, end) each residue is, at least 1: [R, 1]."""
    count = torch.bincount(torch.cat([end, end - span]), minlength=like.shape[1])
    return count.clamp_min(1).unsqueeze(-1).double()


def _moves(positions: Tensor, end: Tensor, span: int, low: Tensor, high: Tensor) -> Tensor:
    """Half of what is missing to bring the pairs (end - span, end) within bounds, summed: [F, R, 3]."""
    gap = positions[:, end] - positions[:, end - span]
    length = gap.norm(dim=-1).clamp_min(1e-6)
    excess = (length - high).clamp_min(0) + (length - low).clamp_max(0)
    push = (0.5 * excess / length).unsqueeze(-1) * gap
    move = torch.zeros_like(positions).index_add(1, end - span, push)
    return move.index_add(1, end, -push)
