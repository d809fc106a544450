"""Peptide bonds: length, planarity, cis; and the C-alpha trace."""

import numpy as np

from hpcbackmap.protein.topology import Topology
from hpcbackmap.protein.torsions import CIS, PLANAR

__all__ = [
    "calpha_distances",
    "cis_bonds",
    "cis_trans_wrong",
    "link_lengths",
    "nonplanar",
]


def link_lengths(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """C-N lengths of the peptide bonds, nm, [F, links]."""
    after = np.flatnonzero(topology.bonded)
    carbon = [topology.atom_index[i - 1, "C"] for i in after.tolist()]
    nitrogen = [topology.atom_index[i, "N"] for i in after.tolist()]
    found: np.ndarray = np.linalg.norm(positions[:, carbon] - positions[:, nitrogen], axis=-1)
    return found


def nonplanar(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the bonds that are trans and planar in the truth and are not in the generated, [F].

    Both are omega angles [F, links]; undefined generated angles are left out, NaN where none is
    left.
    """
    counted = (np.abs(truth) >= PLANAR) & np.isfinite(generated)
    number = counted.sum(-1)
    found: np.ndarray = (counted & (np.abs(generated) < PLANAR)).sum(-1) / np.where(
        number, number, np.nan
    )
    return found


def cis_bonds(omega: np.ndarray) -> np.ndarray:
    """Number of cis peptide bonds of each frame, [F]; NaN where no omega is defined."""
    return np.where(np.isfinite(omega).any(-1), (np.abs(omega) < CIS).sum(-1), np.nan)


def cis_trans_wrong(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the bonds on the other side of 90 degrees than in the truth, [F]; omega [F, links].

    Undefined angles are left out, NaN where none is left.
    """
    known = np.isfinite(generated) & np.isfinite(truth)
    number = known.sum(-1)
    differs = (np.abs(generated) < np.pi / 2) != (np.abs(truth) < np.pi / 2)
    found: np.ndarray = (known & differs).sum(-1) / np.where(number, number, np.nan)
    return found


def calpha_distances(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Distances of bonded neighbours along the C-alpha trace, nm, [F, links].

    positions: heavy atoms [F, A, 3], or the C-alpha atoms alone [F, R, 3].
    """
    trace = (
        positions if positions.shape[1] == topology.n_residues else positions[:, topology.ca_index]
    )
    after = np.flatnonzero(topology.bonded)
    found: np.ndarray = np.linalg.norm(trace[:, after] - trace[:, after - 1], axis=-1)
    return found
