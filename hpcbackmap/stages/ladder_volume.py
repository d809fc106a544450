"""The k-step ELBO: sums of the stages' ELBOs on one footing.

A stage's likelihood is a density on its fibre {fine : M fine = coarse}, with the volume that Euclidean space
gives it. The fibre of a whole ladder has directions in which x_1 moves; a step of x_1 is a longer step of
x_0 (by M^+), and this constant enters the sum, so that ladders with different rungs can be compared.
"""

import math

import numpy as np
import scipy.linalg
from torch import Tensor

from hpcbackmap.resolution.ladder import Ladder

__all__ = ["importance_bound", "ladder_log_volume"]


def importance_bound(log_weights: Tensor) -> Tensor:
    """Importance-weighted bound (Burda et al. 2016) of log weights [K, ...], K independent draws: [...].

    It lies between the ELBO and the log-likelihood and rises with K on average.
    """
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def ladder_log_volume(ladder: Ladder) -> np.ndarray:
    """What to subtract from each rung's log density, nats, [rungs]; the last (coarsest) entry is 0.

    log p(x_0 | x_k) = sum_i [ log p(x_{i-1} | x_i) - entry_i ] as a density on the fibre of the ladder.
    entry_i = 3/2 log det( N^T (M M^T)^-1 N ) with M the mapping of rung i and N an orthonormal basis of the
    directions of x_i that leave x_k fixed. A C-alpha rung contributes 0.
    """
    entries = np.zeros(len(ladder.mappings))
    above = None
    for i in range(len(ladder.mappings) - 1, -1, -1):
        mapping = ladder.mappings[i]
        if above is not None:
            null = scipy.linalg.null_space(above)
            lengths = np.bincount(mapping.bead, weights=mapping.weight**2)
            gram = null.T @ (null / lengths[:, None])
            entries[i] = 1.5 * np.linalg.slogdet(gram)[1] if null.shape[1] else 0.0
        above = mapping.matrix.toarray() if above is None else above @ mapping.matrix.toarray()
    return entries
