"""From rows per frame to one number with its uncertainty."""

import numpy as np

from hpcbackmap.evaluation.judge import Metric, mean

__all__ = ["summarise", "summarise_metric"]

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap interval."""


def summarise(
    metrics: tuple[Metric, ...], rows: dict[str, np.ndarray], bootstrap: int, seed: int
) -> dict[str, dict]:
    """Value, spread and 95 % interval of every metric that has ``rows`` (see `judge`)."""
    return {
        item.name: summarise_metric(item, rows[item.name], bootstrap, seed)
        for item in metrics
        if item.name in rows
    }


def summarise_metric(item: Metric, rows: np.ndarray, bootstrap: int, seed: int) -> dict:
    """``value``, ``std`` over structures (None unless the value is a mean), ``interval_95``.

    The interval comes from ``bootstrap`` resamples of the input frames (rows); members stay with
    their frame. The draws depend on the seed and the number of frames only, so rows of one table
    are paired. Undefined numbers are None.
    """
    draws = np.random.default_rng(seed).integers(len(rows), size=(bootstrap, len(rows)))
    values = np.array([item.reduce(rows[draw]) for draw in draws])
    values = values[np.isfinite(values)]
    interval = [float(x) for x in np.percentile(values, INTERVAL)] if values.size else None
    known = rows[np.isfinite(rows)]
    std = float(known.std()) if item.reduce is mean and known.size else None
    return {"value": _number(item.reduce(rows)), "std": std, "interval_95": interval}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
