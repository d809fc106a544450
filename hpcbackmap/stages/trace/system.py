"""Static description of a molecule for the refinement of its C-alpha trace."""

import numpy as np

from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.layers.bead_system import BeadSystem, bead_fields
from hpcbackmap.stages.system import Beads, Particles, Plain
from hpcbackmap.stages.trace.spline import spline_weights

__all__ = ["TraceSystem", "trace_system"]


class TraceSystem(BeadSystem):
    """Of N residues: what the refinement needs beside the beads.

    stretch [N]: number of the unbroken stretch. residue, residue_chain [N]: place and chain. before_index,
    after_index [N]: residues that orient the frame. bead_spline, spline [N, SPLINE_BEADS]: beads and weights of
    the smoothest trace through the beads.
    """

    stretch: Plain
    residue: Plain
    residue_chain: Plain
    before_index: Particles
    after_index: Particles
    bead_spline: Beads
    spline: Plain


def trace_system(ladder: Ladder, fine: str, coarse: str) -> TraceSystem:
    """Description of one molecule; ``fine`` is its C-alpha trace."""
    topology = ladder.topology
    n = topology.n_residues
    place = np.arange(n)
    chain = np.array(topology.chain_index)
    before, after = place - 1, place + 1
    before[0], after[-1] = min(2, n - 1), max(n - 3, 0)
    bead, weight = spline_weights(ladder.mapping(coarse), chain)
    return TraceSystem.of_molecule(
        n,
        ladder.n_particles(coarse),
        **bead_fields(ladder, fine, coarse),
        stretch=np.cumsum(~np.asarray(topology.bonded)),
        residue=place,
        residue_chain=chain,
        before_index=before,
        after_index=after,
        bead_spline=bead,
        spline=weight,
    )
