"""What generated structures look like, counted while they are there: sums that shards add up.

Shapes: S structures, A heavy atoms; positions nm.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpcbackmap.metrics.clashes import OVERLAP, clashing_pairs
from hpcbackmap.metrics.close_pairs import close_atoms, pairs_within_two_bonds
from hpcbackmap.metrics.peptide import link_lengths
from hpcbackmap.metrics.ramachandran import ramachandran_outliers
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import CIS, omega_angles

__all__ = ["SEARCHED", "count_structures", "in_words"]

PEPTIDE_BOND = (0.12, 0.15)
"""C-N lengths (nm) outside of which a peptide bond is distorted; 0.133 is ideal."""
SEARCHED = 16
"""Structures of a shard whose clashes and expected errors are looked for, evenly spaced."""


def count_structures(topology: Topology, positions: np.ndarray) -> dict[str, int]:
    """Counts over structures [S, A, 3]; those that are not finite are passed over."""
    made = positions[np.isfinite(positions).all(axis=(1, 2))]
    if not len(made):
        return {}
    after = np.flatnonzero(topology.bonded)
    counts = Counter(structures=len(made), peptide_bonds=len(made) * len(after))
    if len(after):
        cis = np.abs(omega_angles(topology, made)) < CIS
        proline = np.array([topology.sequence[i] == "PRO" for i in after])
        lengths = link_lengths(topology, made)
        off = (lengths < PEPTIDE_BOND[0]) | (lengths > PEPTIDE_BOND[1])
        counts.update(
            cis_before_proline=int(cis[:, proline].sum()),
            cis_elsewhere=int(cis[:, ~proline].sum()),
            distorted=int(off.sum()),
        )
    outliers = ramachandran_outliers(topology, made)
    counts.update(outliers=int(outliers.sum()), torsions=outliers.size)
    near = pairs_within_two_bonds(topology)
    searched = made[:: -(-len(made) // SEARCHED)]
    for frame in searched:
        pairs = close_atoms(frame, OVERLAP)
        counts["clashes"] += len(clashing_pairs(topology, pairs, near, OVERLAP))
    counts["residues_searched"] += len(searched) * topology.n_residues
    return {name: int(count) for name, count in counts.items()}


def in_words(counts: Mapping[str, float]) -> dict[str, Any]:
    """The counts of a whole run as a user reads them."""
    if not counts.get("structures"):
        return {}
    residues = max(1, counts.get("residues_searched", 0))
    words = {
        "peptide_bonds": counts["peptide_bonds"],
        "cis_before_proline": counts.get("cis_before_proline", 0),
        "cis_elsewhere": counts.get("cis_elsewhere", 0),
        "distorted_peptide_bonds": counts.get("distorted", 0),
        "ramachandran_outliers_percent": round(
            100 * counts.get("outliers", 0) / max(1, counts.get("torsions", 0)), 3
        ),
        "clashes_per_100_residues": round(100 * counts.get("clashes", 0) / residues, 3),
    }
    if number := counts.get("residues_expected"):
        words["expected_error_angstrom"] = round(10 * counts["expected_error"] / number, 3)
    return words
