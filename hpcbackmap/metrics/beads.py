"""Do generated atoms map back onto the beads that they were made from?"""

import numpy as np

from hpcbackmap.resolution.ladder import Ladder

__all__ = ["bead_error"]


def bead_error(
    ladder: Ladder, positions: np.ndarray, beads: np.ndarray, resolution: str = "fg"
) -> np.ndarray:
    """Largest distance of a coarsened bead from its input bead, nm, [F].

    positions: [F, particles, 3] at ``resolution``; beads: [F, beads, 3], the coarsest resolution.
    """
    coarsened = ladder.coarsen(positions.astype(np.float64), resolution)[ladder.resolutions[-1]]
    found: np.ndarray = np.linalg.norm(coarsened - beads, axis=-1).max(-1)
    return found
