"""C-beta deviation: how far C-beta lies from where the backbone of its residue puts it.

Ideal position and limit of Lovell et al., Proteins 50, 437 (2003): the mean of two constructions, one from
the angle at C and one from the angle at N, at the ideal distance from C-alpha.
"""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["OUTLIER", "cbeta_deviations"]

OUTLIER = 0.025
"""nm."""
IDEAL = {
    "ALA": (0.1536, 110.1, 122.9, 110.6, -122.6),
    "PRO": (0.1530, 112.2, 115.1, 103.0, -120.7),
    "ILE": (0.1540, 109.1, 123.4, 111.5, -122.0),
    "THR": (0.1540, 109.1, 123.4, 111.5, -122.0),
    "VAL": (0.1540, 109.1, 123.4, 111.5, -122.0),
}
"""CA-CB (nm), angle C-CA-CB, dihedral N-C-CA-CB, angle N-CA-CB, dihedral C-N-CA-CB (degrees)."""
IDEAL_OTHER = (0.1530, 110.1, 122.8, 110.5, -122.6)


def cbeta_deviations(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """Distance of each C-beta from its ideal position, nm, [F, residues but glycine].

    positions [F, A, 3]; NaN where the backbone is collinear.
    """
    residues = [i for i, name in enumerate(topology.sequence) if name != "GLY"]
    atoms = [[topology.atom_index[i, a] for a in ("N", "CA", "C", "CB")] for i in residues]
    points = positions[:, np.array(atoms, dtype=np.int64).reshape(-1, 4)].astype(np.float64)
    nitrogen, calpha, carbon, cbeta = np.moveaxis(points, 2, 0)
    ideal = np.array([IDEAL.get(topology.sequence[i], IDEAL_OTHER) for i in residues]).reshape(
        -1, 5
    )
    length = ideal[:, :1]
    angles = np.deg2rad(ideal[:, 1:])
    first = _placed(nitrogen, carbon, calpha, length, angles[:, 0], angles[:, 1])
    second = _placed(carbon, nitrogen, calpha, length, angles[:, 2], angles[:, 3])
    direction = (first + second) / 2 - calpha
    size = np.linalg.norm(direction, axis=-1, keepdims=True)
    direction = direction / np.where(size > 0, size, np.nan)
    found: np.ndarray = np.linalg.norm(calpha + length * direction - cbeta, axis=-1)
    return found


def _placed(
    great: np.ndarray,
    grandparent: np.ndarray,
    parent: np.ndarray,
    length: np.ndarray,
    angle: np.ndarray,
    dihedral: np.ndarray,
) -> np.ndarray:
    """The point at ``length`` from parent, with this angle and dihedral to the other two, [F, Q, 3]."""

    def unit(vector: np.ndarray) -> np.ndarray:
        size = np.linalg.norm(vector, axis=-1, keepdims=True)
        return vector / np.where(size > 1e-9, size, np.nan)

    axis = unit(parent - grandparent)
    normal = unit(np.cross(grandparent - great, axis))
    across = np.cross(normal, axis)
    turned = np.cos(dihedral)[:, None] * across + np.sin(dihedral)[:, None] * normal
    found: np.ndarray = parent + length * (
        np.sin(angle)[:, None] * turned - np.cos(angle)[:, None] * axis
    )
    return found
