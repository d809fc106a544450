"""Beads that follow each other along a chain: how far apart they can be.

B beads, R residues; positions in nm.
"""

import itertools
from functools import partial

import numpy as np

from hpcbackmap.protein.residues import BACKBONE
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.resolution.mapping import Mapping
from hpcbackmap.trajectories.checks import Links

__all__ = ["bead_links", "bead_residues", "span", "typical_steps"]

RESIDUE_REACH = 0.45
"""nm; neighbouring C-alpha atoms are 0.38 apart in a straight chain, thermal motion included."""
BACKBONE_REACH, SIDE_CHAIN_REACH = 0.2, 0.9
"""nm that two beads may be further apart than C-alpha atoms, as means of backbones or of whole residues."""
LEAST = 0.02
"""nm; nearer beads are one particle read twice."""
CLOSEST = 0.2
"""nm; times the cube root of the residues between two beads, what their median distance exceeds."""


def bead_links(ladder: Ladder, resolution: str) -> Links:
    """Beads that follow each other along one unbroken chain, and how far apart these can be.

    A bead is a mean, so that two cannot be further apart than their residues are on the average.
    """
    topology, mapping = ladder.topology, ladder.composed(resolution)
    strand = np.cumsum(~np.array(topology.bonded))
    share = [
        np.bincount(topology.atom_residue, mapping.weight * (mapping.bead == b))
        for b in range(mapping.n_coarse)
    ]
    groups = bead_residues(ladder, resolution)
    pairs, high = [], []
    for a, b in itertools.pairwise(range(len(groups))):
        if len(set(strand[groups[a]]) | set(strand[groups[b]])) == 1:
            apart = np.abs(groups[a][:, None] - groups[b])
            weights = share[a][groups[a]][:, None] * share[b][groups[b]]
            pairs.append((a, b))
            high.append(RESIDUE_REACH * float((weights * apart).sum()) + _offset(ladder, mapping))
    return Links(
        np.array(pairs, dtype=np.int64).reshape(-1, 2),
        np.full(len(pairs), LEAST),
        np.array(high),
        partial(_label, topology, groups),
    )


def typical_steps(links: Links, ladder: Ladder, resolution: str) -> tuple[float, float]:
    """Between what the median distance of linked beads must lie, nm."""
    per_bead = ladder.topology.n_residues / ladder.n_particles(resolution)
    return CLOSEST * per_bead ** (1 / 3), float(np.median(links.high)) if len(links.high) else 0.0


def bead_residues(ladder: Ladder, resolution: str) -> list[np.ndarray]:
    """Residues with a share in each bead, ascending."""
    mapping = ladder.composed(resolution)
    counted = mapping.weight > 0
    residue, bead = ladder.topology.atom_residue[counted], mapping.bead[counted]
    return [np.unique(residue[bead == b]) for b in range(mapping.n_coarse)]


def _offset(ladder: Ladder, mapping: Mapping) -> float:
    names = np.array(ladder.topology.atom_names)[mapping.weight > 0]
    if set(names) == {"CA"}:
        return 0.0
    return BACKBONE_REACH if set(names) <= set(BACKBONE) else SIDE_CHAIN_REACH


def _label(topology: Topology, groups: list[np.ndarray], bead: int) -> str:
    return f"bead {bead} ({span(topology, groups[bead])})"


def span(topology: Topology, residues: np.ndarray) -> str:
    """``A:ALA1 to A:GLY5``, with every further stretch after a comma."""
    stretches = np.split(residues, np.flatnonzero(np.diff(residues) > 1) + 1)
    return ", ".join(
        topology.label(int(part[0]))
        + (f" to {topology.label(int(part[-1]))}" if len(part) > 1 else "")
        for part in stretches
    )
