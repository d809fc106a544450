"""Contacts between C-alpha atoms: which of the truth's are there, which are false."""

from typing import NamedTuple

import numpy as np

from hpcbackmap.metrics.close_pairs import close_atoms
from hpcbackmap.protein.topology import Topology

__all__ = ["CONTACT", "SEPARATION", "MapAgreement", "calpha_contacts", "compare_contacts"]

CONTACT = 0.8
"""nm."""
SEPARATION = 3
"""Residues along a chain; those of different chains always count."""


class MapAgreement(NamedTuple):
    """recovered: share of the truth's contacts that are there. false: share of the generated that the
    truth lacks. NaN where there is no contact to count."""

    recovered: float
    false: float


def calpha_contacts(topology: Topology, trace: np.ndarray) -> np.ndarray:
    """Sorted numbers of the residue pairs in contact, [C]; trace [R, 3], nm."""
    first, second = close_atoms(trace, CONTACT).pairs.T
    chain = np.array(topology.chain_index)
    counted = (chain[first] != chain[second]) | (second - first >= SEPARATION)
    return np.sort(first[counted] * topology.n_residues + second[counted])


def compare_contacts(generated: np.ndarray, truth: np.ndarray) -> MapAgreement:
    """Both as of `calpha_contacts`."""
    shared = len(np.intersect1d(generated, truth, assume_unique=True))
    return MapAgreement(
        shared / len(truth) if len(truth) else float("nan"),
        1 - shared / len(generated) if len(generated) else float("nan"),
    )
