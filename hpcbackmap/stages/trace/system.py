"""Static description of a molecule for the refinement of its C-alpha trace."""

import numpy as np
import torch

from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import System
from hpcbackmap.stages.layers.bead_system import bead_system
from hpcbackmap.stages.trace.spline import spline_weights

__all__ = ["trace_system"]


def trace_system(ladder: Ladder, fine: str, coarse: str) -> System:
    """`bead_system` and what the refinement of N residues needs.

    ``stretch``: number of the unbroken stretch; ``residue``, ``residue_chain``: place and chain;
    ``before_index``, ``after_index``: residues that orient the frame; ``bead_spline``, ``spline``
    [N, SPLINE_BEADS]: the smoothest trace through the beads.
    """
    system, topology = bead_system(ladder, fine, coarse), ladder.topology
    n = topology.n_residues
    place = np.arange(n)
    chain = np.array(topology.chain_index)
    before, after = place - 1, place + 1
    before[0], after[-1] = min(2, n - 1), max(n - 3, 0)
    bead, weight = spline_weights(ladder.mapping(coarse), chain)
    tensors = {
        "stretch": np.cumsum(~np.asarray(topology.bonded)),
        "residue": place,
        "residue_chain": chain,
        "before_index": before,
        "after_index": after,
        "bead_spline": bead,
        "spline": weight,
    }
    for key, value in tensors.items():
        system[key] = torch.from_numpy(np.ascontiguousarray(value))
    return system
