"""What a structure shows by itself: clashes, handedness, geometry, size. No truth is needed.

Shapes: S structures, A heavy atoms; positions nm.
"""

import numpy as np

from hpcbackmap.metrics.cbeta import OUTLIER, cbeta_deviations
from hpcbackmap.metrics.clashes import (
    OVERLAP,
    SEVERE_OVERLAP,
    clashing_pairs,
    clashing_residues,
)
from hpcbackmap.metrics.clashscore import clashscore
from hpcbackmap.metrics.close_pairs import CloseAtoms, count_pairs, pairs_within_two_bonds
from hpcbackmap.metrics.peptide import cis_bonds
from hpcbackmap.metrics.radius_of_gyration import radius_of_gyration
from hpcbackmap.metrics.ramachandran import ramachandran_favoured, ramachandran_outliers
from hpcbackmap.metrics.reference_forms import clashing_residues_reference
from hpcbackmap.metrics.registry import ANGSTROM
from hpcbackmap.metrics.rings import pierced_rings
from hpcbackmap.metrics.rotamer_regions import rotamer_regions
from hpcbackmap.protein.chirality import chiral_volumes, handedness
from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import omega_angles

__all__ = ["own_values"]

PAIR_RANGE = 0.5
"""nm; non-bonded pairs that the share of clashing pairs refers to."""


def own_values(
    topology: Topology, positions: np.ndarray, close: list[CloseAtoms]
) -> dict[str, np.ndarray]:
    """Values [S] of the metrics that do not compare.

    positions: [S, A, 3]; close: their pairs within the clash distances at least.
    """
    inverted, flat = handedness(chiral_volumes(topology, positions))
    deviation = cbeta_deviations(topology, positions)
    known = np.isfinite(deviation)
    number = np.where(known.any(-1), known.sum(-1), np.nan)
    return (
        _clashes(topology, positions, close)
        | _ramachandran(topology, positions)
        | _rotamers(topology, positions)
        | {
            "clashscore": clashscore(topology, positions),
            "cis_peptide_bonds_per_structure": cis_bonds(omega_angles(topology, positions)),
            "cb_deviation_angstrom": ANGSTROM * np.where(known, deviation, 0).sum(-1) / number,
            "cb_deviation_outliers_percent": 100 * (known & (deviation > OUTLIER)).sum(-1) / number,
            "pierced_rings_per_structure": pierced_rings(topology, positions).astype(float),
            "d_residues_percent": 100 * inverted,
            "flat_residues_percent": 100 * flat,
            "cb_inverted_percent": 100 * handedness(chiral_volumes(topology, positions, "CB"))[0],
            "radius_of_gyration_angstrom": ANGSTROM * radius_of_gyration(topology, positions),
        }
    )


def _ramachandran(topology: Topology, positions: np.ndarray) -> dict[str, np.ndarray]:
    outliers = ramachandran_outliers(topology, positions)
    favoured = ramachandran_favoured(topology, positions)
    number = outliers.shape[1] or np.nan
    return {
        "ramachandran_favoured_percent": 100 * favoured.sum(-1) / number,
        "ramachandran_outliers_percent": 100 * outliers.sum(-1) / number,
    }


def _rotamers(topology: Topology, positions: np.ndarray) -> dict[str, np.ndarray]:
    favoured, outliers = rotamer_regions(topology, positions)
    number = favoured.shape[1] or np.nan
    return {
        "rotamers_favoured_percent": 100 * favoured.sum(-1) / number,
        "rotamer_outliers_percent": 100 * outliers.sum(-1) / number,
    }


def _clashes(
    topology: Topology, positions: np.ndarray, close: list[CloseAtoms]
) -> dict[str, np.ndarray]:
    near = pairs_within_two_bonds(topology)
    names = (
        "clashes_severe_per_100_residues",
        "clashes_per_100_residues",
        "residues_clashing_severe_percent",
        "residues_clashing_percent",
        "clashing_pairs_severe_percent",
        "clashing_pairs_percent",
        "residues_clashing_reference_percent",
    )
    table = np.empty((len(positions), len(names)))
    for k, (frame, pairs) in enumerate(zip(positions, close, strict=True)):
        clashes = [clashing_pairs(topology, pairs, near, cut) for cut in (SEVERE_OVERLAP, OVERLAP)]
        n_pairs = max(1, count_pairs(frame, PAIR_RANGE) - len(near))
        table[k] = (
            *(100 * len(found) / topology.n_residues for found in clashes),
            *(100 * clashing_residues(topology, found) for found in clashes),
            *(100 * len(found) / n_pairs for found in clashes),
            100 * clashing_residues_reference(topology, pairs),
        )
    return dict(zip(names, table.T, strict=True))
