"""Heavy atoms of a protein made beads of a representation, and read."""

import numpy as np

from hpcbackmap.resolution.representations.coarsen import coarse_grained
from hpcbackmap.resolution.representations.detect import read_as
from hpcbackmap.trajectories.particles import ChainRow, Particles, ResidueRow

__all__ = ["read"]


def read(protein, name: str):
    """Reading and frames [F, P, 3] of a protein (with ``topology`` and ``positions``) as beads."""
    names, residue, positions = coarse_grained(name, protein.topology, protein.positions)
    rows = [ResidueRow(kind, i + 1, "", 0) for i, kind in enumerate(protein.topology.sequence)]
    particles = Particles(
        "beads.pdb", names, residue, rows, [ChainRow("A", "")], [""] * len(names),
        np.full(len(rows), np.nan), positions[0],
    )  # fmt: skip
    return read_as(name, particles), positions
