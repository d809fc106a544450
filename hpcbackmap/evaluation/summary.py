"""From totals by block to one number with its uncertainty."""

import numpy as np

from hpcbackmap.evaluation.accumulate import Totals
from hpcbackmap.metrics.reduction import MEAN, quotient
from hpcbackmap.metrics.registry import Metric

__all__ = ["summarise"]

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap interval."""
Table = tuple[np.ndarray, np.ndarray]
"""Numbers of the blocks that hold something [b], and their totals [b, s]."""
CHUNK = 4_000_000
"""Numbers of resampled totals held at once."""


def summarise(totals: Totals, n_blocks: int, bootstrap: int, seed: int) -> dict[str, dict]:
    """``value``, ``unit``, ``std``, ``interval_95`` and ``n`` of every metric that has totals.

    The interval comes from ``bootstrap`` resamples of the blocks; None if there is one block only. The
    draws depend on the seed and the number of blocks alone, so rows of one table are paired.
    std: over structures, None unless the value is a mean; n: the structures with a value then.
    Undefined numbers are None.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=bootstrap)
    return {
        item.name: _summary(item, totals.blocks[item.name], draws)
        for item in totals.metrics
        if item.name in totals.blocks
    }


def _summary(item: Metric, systems: dict[str, dict[int, np.ndarray]], draws: np.ndarray) -> dict:
    tables = [_table(sums) for _, sums in sorted(systems.items())]
    once = np.ones((1, draws.shape[1]), dtype=draws.dtype)
    values = _values(item, tables, draws) if draws.shape[1] > 1 else np.empty(0)
    values = values[np.isfinite(values)]
    summary = {
        "value": _number(_values(item, tables, once)[0]),
        "unit": item.unit,
        "std": None,
        "interval_95": [float(x) for x in np.percentile(values, INTERVAL)] if values.size else None,
    }
    if item.reduce is MEAN:
        number, total, squares = tables[0][1].sum(0)
        summary["n"] = int(number)
        if number:
            summary["std"] = float(np.sqrt(max(0.0, squares / number - (total / number) ** 2)))
    return summary


def _table(sums: dict[int, np.ndarray]) -> Table:
    present = sorted(sums)
    return np.array(present), np.stack([sums[block] for block in present]).astype(np.float64)


def _values(item: Metric, tables: list[Table], draws: np.ndarray) -> np.ndarray:
    """The value of every resample, [resamples]; draws [resamples, blocks]: how often each is drawn."""
    numerator, denominator = np.zeros((2, len(draws)))
    for present, table in tables:
        size = max(1, CHUNK // max(table.shape))
        for start in range(0, len(draws), size):
            part = slice(start, start + size)
            top, bottom = item.reduce.parts(_drawn(item, draws[part, present], table))
            numerator[part] += top
            denominator[part] += bottom
    return quotient(numerator, denominator)


def _drawn(item: Metric, weights: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Totals [resamples, s] of ``table`` [blocks, s] with each block counted ``weights`` times."""
    if item.reduce.join is np.maximum:
        return np.where(weights > 0, table[:, 0], -np.inf).max(1)[:, None]
    return weights @ table


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
