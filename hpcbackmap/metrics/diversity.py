"""Do the members of one input frame spread as far as the truth lies from them?"""

from itertools import combinations

import numpy as np

from hpcbackmap.metrics.rmsd import aligned_rmsd

__all__ = ["crps", "member_spread", "spread_and_error"]


def member_spread(members: np.ndarray) -> np.ndarray:
    """Mean superposed RMSD between the members of each frame, nm, [F]; members [F, M, A, 3]."""
    pairs = list(combinations(range(members.shape[1]), 2))
    if not pairs:
        return np.full(len(members), np.nan)
    found: np.ndarray = np.mean(
        [aligned_rmsd(members[:, i], members[:, j]) for i, j in pairs], axis=0
    )
    return found


def spread_and_error(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Expected and real mean square distance of the truth from the members' mean, nm^2, [F, 2].

    members [F, M, A, 3], M > 1; truth [F, A, 3]. If the truth is one more draw from what the members are
    drawn from, both have the same expectation: (1 + 1/M) times the variance, which the members
    estimate with M - 1 degrees of freedom (Fortin et al., J. Hydrometeorol. 15, 1708 (2014)).
    """
    number = members.shape[1]
    middle = members.mean(1, dtype=np.float64)
    variance = ((members - middle[:, None]) ** 2).sum((1, 3)) / (number - 1)
    error = ((truth - middle) ** 2).sum(-1)
    return np.stack([(1 + 1 / number) * variance.mean(-1), error.mean(-1)], axis=-1)


def crps(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of a coordinate, mean over all, nm, [F].

    members [F, M, A, 3], M > 1; truth [F, A, 3]. The form that does not favour few members (Ferro, Q. J.
    R. Meteorol. Soc. 140, 1917 (2014)).
    """
    number = members.shape[1]
    ordered = np.sort(members, axis=1)
    rank = 2 * np.arange(number) - number + 1
    between = np.einsum("m,fmax->fax", rank, ordered) / (number * (number - 1))
    error = np.abs(members - truth[:, None]).mean(1)
    found: np.ndarray = (error - between).mean((1, 2))
    return found
