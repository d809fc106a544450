"""Histograms of angles and their Jensen-Shannon divergence."""

import numpy as np

__all__ = ["ANGLE_BINS", "angle_counts", "jensen_shannon"]

ANGLE_BINS = 36
"""Bins of 10 degrees over a full turn."""


def angle_counts(angles: np.ndarray) -> np.ndarray:
    """Histogram of each frame, [F, ANGLE_BINS]; angles [F, Q], radians, NaN is not counted."""
    turn = (angles + np.pi) / (2 * np.pi)
    known = np.isfinite(turn)
    bins = np.floor(np.where(known, turn, 0) * ANGLE_BINS).astype(np.int64) % ANGLE_BINS
    keys = bins + ANGLE_BINS * np.arange(len(angles))[:, None]
    return np.bincount(keys[known], minlength=ANGLE_BINS * len(angles)).reshape(-1, ANGLE_BINS)


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    """Jensen-Shannon divergence of two histograms, nats.

    0 for equal shapes, ln 2 for disjoint ones, NaN where a histogram is empty.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def relative_entropy(a):
        seen = a > 0
        return (a[seen] * np.log(a[seen] / middle[seen])).sum()

    return float(0.5 * (relative_entropy(p) + relative_entropy(q)))
