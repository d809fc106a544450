"""How rows per frame become one number: additive statistics, so that no row has to be kept.

A row is turned into statistics that add up (or whose largest counts) over frames; totals over any
frames give the number. A bootstrap resamples the totals of blocks of frames.
Shapes: F frames, k entries of a row, s statistics; ``...`` any leading axes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from hpcbackmap.metrics.divergence import jensen_shannon

__all__ = [
    "DIVERSITY",
    "LARGEST",
    "MEAN",
    "ROOT_RATIO",
    "TOTAL_VARIATION",
    "Reduction",
    "divergence",
]

Parts = tuple[np.ndarray, np.ndarray]
"""Numerator and denominator; a denominator of 0 means undefined."""


class Reduction(NamedTuple):
    """statistics: rows [F, k] to [F, s]. parts: totals [..., s] to numerator and denominator [...].

    join: how statistics of frames become totals. per_system: rows of different systems cannot be
    joined; numerators and denominators of the systems are added instead. skewed: a distance between
    populations, which grows with whatever noise they have, so that resamples lie above the value.
    """

    statistics: Callable[[np.ndarray], np.ndarray]
    parts: Callable[[np.ndarray], Parts]
    join: np.ufunc = np.add
    per_system: bool = False
    skewed: bool = False

    def __call__(self, rows: np.ndarray) -> float:
        """The number of rows [F, k] of one system; NaN where it is undefined."""
        numerator, denominator = self.parts(self.join.reduce(self.statistics(rows), axis=0))
        return float(quotient(numerator, denominator))


def quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is 0 or not finite."""
    good = np.isfinite(denominator) & (np.asarray(denominator) != 0)
    return np.where(good, numerator, np.nan) / np.where(good, denominator, 1)


def _moments(rows: np.ndarray) -> np.ndarray:
    """Number, sum and sum of squares of the defined entries, [F, 3]."""
    known = np.isfinite(rows)
    filled = np.where(known, rows, 0.0)
    return np.stack([known.sum(-1), filled.sum(-1), (filled**2).sum(-1)], axis=-1)


def _largest(rows: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.where(np.isfinite(rows), rows, -np.inf).max(
        -1, keepdims=True, initial=-np.inf
    )
    return found


def _defined(rows: np.ndarray) -> np.ndarray:
    """Rows with an undefined entry count as none."""
    return np.where(np.isfinite(rows).all(-1, keepdims=True), rows, 0.0)


def _as_they_are(rows: np.ndarray) -> np.ndarray:
    return rows


def _largest_parts(totals: np.ndarray) -> Parts:
    found = np.isfinite(totals[..., 0])
    return np.where(found, totals[..., 0], 0.0), found.astype(float)


def _diversity_parts(totals: np.ndarray) -> Parts:
    """Totals of spread and error (see `diversity`)."""
    return totals[..., 1] - totals[..., 0], totals[..., 1]


def _root_parts(totals: np.ndarray) -> Parts:
    return np.sqrt(totals[..., 0]), np.sqrt(totals[..., 1])


def divergence(bins: int) -> Reduction:
    """Jensen-Shannon divergence, nats, mean over the angles.

    Rows [F, angles * 2 * bins]: histogram of the generated, of the truth, next angle.
    """

    def parts(totals: np.ndarray) -> Parts:
        counts = totals.reshape(*totals.shape[:-1], -1, 2, bins)
        values = jensen_shannon(counts[..., 0, :], counts[..., 1, :]).mean(-1)
        return np.nan_to_num(values), np.isfinite(values).astype(float)

    return Reduction(_as_they_are, parts, skewed=True)


def _variation_parts(totals: np.ndarray) -> Parts:
    """Rows of `rotamers.rotamer_rows`: summed total variation, and residues seen in both."""
    from hpcbackmap.metrics.rotamers import total_variation

    return total_variation(totals)


MEAN = Reduction(_moments, lambda totals: (totals[..., 1], totals[..., 0]))
"""Mean of the defined entries."""
LARGEST = Reduction(_largest, _largest_parts, np.maximum)
DIVERSITY = Reduction(_defined, _diversity_parts)
ROOT_RATIO = Reduction(_defined, _root_parts)
"""Root of the ratio of two sums."""
TOTAL_VARIATION = Reduction(_as_they_are, _variation_parts, per_system=True, skewed=True)
