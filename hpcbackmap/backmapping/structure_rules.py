"""Structures that no protein has: residues of the other hand, peptide bonds that are none.

Traces that lie on a line, or beads that do, leave atoms without a side to stand on. Shapes: F structures, A
heavy atoms; positions nm.
"""

import numpy as np

from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.protein.chirality import FLAT, chiral_volumes
from hpcbackmap.protein.topology import Topology

__all__ = ["impossible"]

LINK = (0.08, 0.30)
"""nm; a peptide bond is 0.133 long, and no further off however far its C-alpha atoms are strained."""


def impossible(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Which structures [F, A, 3] have a D-residue or a broken peptide bond, bool [F]; numbers that are none are
    not judged.
    """
    with np.errstate(invalid="ignore"):
        inverted = (chiral_volumes(topology, positions) <= -FLAT).any(axis=1)
        lengths = link_lengths(topology, positions)
        broken = ((lengths < LINK[0]) | (lengths > LINK[1])).any(axis=1)
    return np.logical_or(inverted, broken)
