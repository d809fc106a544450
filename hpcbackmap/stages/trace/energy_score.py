"""Energy score of two draws: a loss that is least where the draws are distributed as the truth.

ES = E d(X, y) - E d(X, X')/2 for draws X, X' and truth y, a strictly proper score where d is a distance
(Gneiting & Raftery 2007). It needs no posterior: what is used, network and noise together, is what is trained.
For one answer that no noise enters, the same with X = X' is d(X, y). Shapes as in `stages.base`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hpcbackmap.protein.residues import TRANS
from hpcbackmap.stages.layers.pooling import bead_sums
from hpcbackmap.stages.trace.network import displacement
from hpcbackmap.stages.trace.system import TraceSystem

__all__ = [
    "SPANS",
    "energy_score",
    "local_shape",
    "near_pairs",
    "other_noise",
    "pair_lengths",
    "trace_scores",
]

SPANS = (1, 2, 3, 4, 5, 6)
"""Residues apart whose distances describe the local shape of a trace."""
SHAPE_SCALE = 0.05
"""Typical error of these distances, nm."""
NEAR, ALONG, KEPT = 1.5, 12, 0.2
"""Pairs that count, by distance in the smoothest trace (nm) or places apart; error (nm) that loses 63 %."""
SMALL = 1e-8
"""Keeps square roots smooth, nm^2."""


def trace_scores(
    draws: Tensor, truth: Tensor, start: Tensor, system: TraceSystem
) -> dict[str, Tensor]:
    """Scores of two draws, or of one answer, [2 F or F, N, 3], for ``truth`` [F, N, 3].

    place: residues of each bead as they lie, in units of `displacement`. shape: local shape of each residue.
    pairs: distances of residues that are near each other in ``start`` [F, N, 3], which no truth enters; an
    error counts less the larger it is, as in lDDT.
    """
    length = system.length
    unit = displacement(length)

    def place(a: Tensor, b: Tensor) -> Tensor:
        square = bead_sums((a - b).square().sum(-1), system) / length
        return (square + SMALL).sqrt() / unit

    def shape(a: Tensor, b: Tensor) -> Tensor:
        return ((a - b).square().mean(-1) + SMALL).sqrt() / SHAPE_SCALE

    def pairs(a: Tensor, b: Tensor) -> Tensor:
        return 1 - torch.exp(-(a - b).abs() / KEPT)

    both = near_pairs(start[0], system)  # of the first frame
    share = length / length.sum()
    return {
        "place": (energy_score(place, draws, truth) * share).sum(),
        "shape": energy_score(shape, local_shape(draws, system), local_shape(truth, system)).mean(),
        "pairs": energy_score(pairs, pair_lengths(draws, both), pair_lengths(truth, both)).mean(),
    }


def energy_score(
    distance: Callable[[Tensor, Tensor], Tensor], draws: Tensor, truth: Tensor
) -> Tensor:
    """Energy score of two draws, by entry; of one answer its distance from the truth."""
    if len(draws) == len(truth):
        return distance(draws, truth)
    first, last = draws.chunk(2)
    return 0.5 * (distance(first, truth) + distance(last, truth) - distance(first, last))


def near_pairs(trace: Tensor, system: TraceSystem) -> Tensor:
    """Pairs [2, pairs] of residues of one molecule near each other in ``trace`` [N, 3] or along the chain."""
    place = torch.arange(len(trace), device=trace.device)
    same = system.fine_system[:, None] == system.fine_system
    near = torch.cdist(trace, trace) < NEAR
    near |= (place[:, None] - place).abs() <= ALONG
    return torch.nonzero(torch.triu(same & near, 1)).T


def pair_lengths(trace: Tensor, pairs: Tensor) -> Tensor:
    gap = trace[:, pairs[1]] - trace[:, pairs[0]]
    return (gap.square().sum(-1) + SMALL).sqrt()


def local_shape(trace: Tensor, system: TraceSystem) -> Tensor:
    """Distances over the SPANS and the handedness of four residues, nm: [F, N, 7]; 0 beyond a break.

    Handedness is the volume of three links by the square of a link's length; links that are too long are cut.
    """
    n = trace.shape[1]
    columns = []
    for span in SPANS:
        gap = trace[:, span:] - trace[:, : n - span]
        same = system.stretch[span:] == system.stretch[: n - span]
        same = same & (system.fine_system[span:] == system.fine_system[: n - span])
        distance = (gap.square().sum(-1) + SMALL).sqrt() * same
        columns.append(torch.nn.functional.pad(distance, (0, span)))
        if span == 3:
            step = trace[:, 1:] - trace[:, :-1]
            step = step * (TRANS / (step.norm(dim=-1, keepdim=True) + 1e-3)).clamp(max=1.0)
            turn = torch.linalg.cross(step[:, :-2], step[:, 1:-1])
            volume = (turn * step[:, 2:]).sum(-1) / TRANS**2 * same
            columns.append(torch.nn.functional.pad(volume, (0, span)))
    return torch.stack(columns, -1)


def other_noise(noise: Tensor, system: TraceSystem) -> Tensor:
    """A second draw's noise from the first's [F, B, L]: that of the bead half a molecule away, reversed.

    Independent of the first wherever a bead looks no farther than that; exactly standard normal.
    """
    start = system.first_bead[system.coarse_system]
    size = system.n_beads[system.coarse_system]
    place = torch.arange(len(size), device=size.device) - start
    return -noise[:, start + (place + size // 2) % size].flip(-1)
