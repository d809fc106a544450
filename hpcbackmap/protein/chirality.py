"""Handedness of the tetrahedral carbons."""

import numpy as np

from hpcbackmap.protein.topology import Topology

__all__ = ["FLAT", "chiral_volumes", "handedness"]

CALPHA = ("N", "C", "CB")
"""Neighbours of C-alpha, in the order that gives an L residue a positive volume."""
CBETA = {"ILE": ("CA", "CG1", "CG2"), "THR": ("CA", "OG1", "CG2")}
"""Neighbours of the second stereocentre, positive for the natural one."""
FLAT = 5e-4
"""nm^3; a tetrahedral carbon has about 2.5e-3, a smaller volume has no handedness."""


def chiral_volumes(topology: Topology, positions: np.ndarray, centre: str = "CA") -> np.ndarray:
    """Signed volume spanned by three neighbours of each stereocentre, nm^3, [F, centres].

    centre: ``CA`` (every residue but glycine) or ``CB`` (isoleucine and threonine). Natural:
    positive.
    """
    atoms = []
    for i, name in enumerate(topology.sequence):
        neighbours = CBETA.get(name) if centre == "CB" else CALPHA if name != "GLY" else None
        if neighbours:
            atoms.append([topology.atom_index[i, atom] for atom in (centre, *neighbours)])
    points = positions[:, np.array(atoms, dtype=np.int64).reshape(-1, 4)].astype(np.float64)
    first, second, third = (points[:, :, k] - points[:, :, 0] for k in (1, 2, 3))
    found: np.ndarray = (first * np.cross(second, third)).sum(-1)
    return found


def handedness(volumes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of inverted and of flat centres of each frame, [F] each; volumes [F, centres].

    Inverted: among the centres that are not flat; NaN where all are flat or there are none.
    """
    flat = np.abs(volumes) < FLAT
    solid = (~flat).sum(-1)
    inverted = (volumes <= -FLAT).sum(-1) / np.where(solid, solid, np.nan)
    return inverted, flat.sum(-1) / (volumes.shape[-1] or np.nan)
