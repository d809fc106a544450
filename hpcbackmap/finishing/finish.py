"""The finish of a structure: what is added to it or changed in it after the chain.

Shapes: S structures, A heavy atoms, H hydrogens; positions nm.
"""

import numpy as np

from hpcbackmap.finishing.place import placed
from hpcbackmap.finishing.rotors import turn
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.topology import Topology

__all__ = ["add_hydrogens"]


def add_hydrogens(topology: Topology, heavy: np.ndarray) -> np.ndarray:
    """Hydrogens float32 [S, H, 3] of structures [S, A, 3], each by itself; NaN where these are not finite."""
    hydrogens = hydrogens_of(topology)
    found = np.full((len(heavy), len(hydrogens.names), 3), np.nan, dtype=np.float32)
    good = np.isfinite(heavy).all(axis=(1, 2))
    if good.any():
        made = placed(hydrogens, heavy[good])
        turn(hydrogens, heavy[good], made)
        found[good] = made
    return found
