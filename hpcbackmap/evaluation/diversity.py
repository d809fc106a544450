"""Do the members of one input frame differ from one another as much as from the truth?"""

from itertools import combinations

import numpy as np

from hpcbackmap.evaluation.rmsd import aligned_rmsd

__all__ = ["diversity", "member_spread"]


def member_spread(members: np.ndarray) -> np.ndarray:
    """Mean superposed RMSD between the members of each frame, nm, [F]; members [F, M, A, 3]."""
    pairs = list(combinations(range(members.shape[1]), 2))
    if not pairs:
        return np.full(len(members), np.nan)
    return np.mean([aligned_rmsd(members[:, i], members[:, j]) for i, j in pairs], axis=0)


def diversity(spread: np.ndarray, error: np.ndarray) -> float:
    """DIV = 1 - mean spread / mean error: 0, as diverse as wrong; 1, deterministic."""
    return float(1 - spread.mean() / error.mean())
