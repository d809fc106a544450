"""Energy score of two prior draws: a loss that is least where the draws are distributed as the truth.

ES = E|X - y| - E|X - X'|/2 for draws X, X' and truth y (Gneiting & Raftery 2007), a strictly proper score. It
trains what is used, prior and decoder together; the posterior takes no part in it. Shapes as in `stages.base`.
"""

import torch
from torch import Tensor

from hpcbackmap.stages.layers.close_trace import TRANS
from hpcbackmap.stages.layers.pooling import bead_sums
from hpcbackmap.stages.trace.system import TraceSystem

__all__ = ["SPANS", "energy_score", "local_shape", "other_noise"]

SPANS = (2, 3, 4, 5, 6)
"""Residues apart whose distances describe the local shape of a trace."""


def energy_score(first: Tensor, second: Tensor, truth: Tensor, system: TraceSystem) -> Tensor:
    """Mean energy score (nm) of draws ``first`` and ``second`` for the traces ``truth``, all [F, N, 3].

    Half is that of each bead's members as they lie, half that of each residue's local shape.
    """
    size = system.members

    def apart(a, b):
        square = bead_sums((a - b).square().sum(-1), system) / size
        return (square + SMALL).sqrt().mean()

    shapes = [local_shape(draw, system) for draw in (first, second, truth)]

    def unlike(a, b):
        return ((shapes[a] - shapes[b]).square().mean(-1) + SMALL).sqrt().mean()

    place = 0.5 * (apart(first, truth) + apart(second, truth) - apart(first, second))
    shape = 0.5 * (unlike(0, 2) + unlike(1, 2) - unlike(0, 1))
    return place + shape


def local_shape(trace: Tensor, system: TraceSystem) -> Tensor:
    """Distances over the SPANS and the handedness of four residues, nm: [F, N, 6]; 0 beyond a break."""
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


SMALL = 1e-8
"""Keeps square roots smooth, nm^2."""
