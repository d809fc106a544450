"""Histograms of angles and their Jensen-Shannon divergence."""

import numpy as np

__all__ = ["ANGLE_BINS", "PLANE_BINS", "angle_counts", "jensen_shannon", "plane_counts"]

ANGLE_BINS = 36
"""Bins of 10 degrees over a full turn."""
PLANE_BINS = 18 * 18
"""Bins of 20 degrees over two full turns: as fine as some thousand residues can fill."""


def angle_counts(angles: np.ndarray) -> np.ndarray:
    """Histogram of each frame, [F, ANGLE_BINS]; angles [F, Q], radians, NaN is not counted."""
    return _counts(_bin(angles, ANGLE_BINS), np.isfinite(angles), ANGLE_BINS)


def plane_counts(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Histogram of pairs of angles, [F, PLANE_BINS]; both [F, Q], radians, NaN is not counted."""
    side = int(PLANE_BINS**0.5)
    bins = side * _bin(first, side) + _bin(second, side)
    return _counts(bins, np.isfinite(first) & np.isfinite(second), PLANE_BINS)


def _bin(angles: np.ndarray, bins: int) -> np.ndarray:
    turn = (np.where(np.isfinite(angles), angles, 0.0) + np.pi) / (2 * np.pi)
    return np.floor(turn * bins).astype(np.int64) % bins


def _counts(bins: np.ndarray, known: np.ndarray, n_bins: int) -> np.ndarray:
    keys = bins + n_bins * np.arange(len(bins))[:, None]
    return np.bincount(keys[known], minlength=n_bins * len(bins)).reshape(-1, n_bins)


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of histograms [..., bins], nats, [...].

    0 for equal shapes, ln 2 for disjoint ones, NaN where a histogram is empty.
    """
    totals = [np.sum(counts, axis=-1, keepdims=True) for counts in (first, second)]
    p, q = (
        counts / np.where(total > 0, total, np.nan)
        for counts, total in zip((first, second), totals, strict=True)
    )
    middle = (p + q) / 2

    def relative_entropy(a: np.ndarray) -> np.ndarray:
        ratio = np.divide(a, middle, out=np.ones_like(middle), where=a > 0)
        found: np.ndarray = (a * np.log(ratio)).sum(-1)
        return found

    found: np.ndarray = 0.5 * (relative_entropy(p) + relative_entropy(q))
    return found
