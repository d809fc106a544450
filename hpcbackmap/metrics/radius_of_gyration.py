"""Size of the whole molecule."""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["radius_of_gyration"]


def radius_of_gyration(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Mass-weighted radius of gyration of the heavy atoms, nm, [F]; positions [F, A, 3]."""
    share = (topology.masses / topology.masses.sum())[:, None]
    centred = positions - (positions * share).sum(-2, keepdims=True)
    found: np.ndarray = np.sqrt((centred**2 * share).sum((-1, -2)))
    return found
