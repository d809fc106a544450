"""Where stages see molecules: about the centre of their beads, in training, in judging and in backmapping.

float32 numbers a hundred nm from the origin are 8e-6 nm apart; about its centre a molecule keeps its digits.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["about", "centre_of", "centred_together"]


def centre_of(coarse: np.ndarray) -> np.ndarray:
    """Mean of the beads of each frame, float64 [F, 1, 3]; coarse [F, B, 3]."""
    found: np.ndarray = coarse.astype(np.float64).mean(axis=1, keepdims=True)
    return found


def about(positions: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Positions [F, N, 3] from ``centre`` [F, 1, 3], float32."""
    found: np.ndarray = (positions.astype(np.float64) - centre).astype(np.float32)
    return found


def centred_together(
    fine: np.ndarray, coarse: np.ndarray, fine_sizes: Sequence[int], coarse_sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Molecules one after another, fine [F, N, 3] and coarse [F, B, 3], each about its own centre.

    sizes: particles and beads of each molecule.
    """
    finer = np.split(fine, np.cumsum(fine_sizes)[:-1], axis=1)
    beads = np.split(coarse, np.cumsum(coarse_sizes)[:-1], axis=1)
    centres = [centre_of(part) for part in beads]
    finest, coarser = (
        np.concatenate([about(*item) for item in zip(parts, centres, strict=True)], axis=1)
        for parts in (finer, beads)
    )
    return finest, coarser
