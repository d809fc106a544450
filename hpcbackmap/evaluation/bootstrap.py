"""Intervals by the bootstrap of blocks: frames close in time resemble each other, so they are drawn together.

A moving part of a trajectory of n frames is cut into about sqrt(n) blocks of sqrt(n) frames, a
block length that grows with n as the theory of the block bootstrap asks (Künsch 1989), and is long
enough for slow proteins. Many small systems are blocks of their own.

Divergences of resampled histograms lie above that of the histograms themselves, because a resample
has the noise of the sample and its own; their resamples are moved down by what they are above it on average,
the bootstrap's own estimate of that bias (Efron and Tibshirani 1993, section 10.2), and not below 0.

Statistics of metrics (`metrics.reduction`) are added up by block, so that memory does not grow with the frames;
numbers with their intervals come from these totals.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hpcbackmap.metrics.reduction import MEAN, quotient
from hpcbackmap.metrics.registry import Metric

__all__ = ["MAX_BLOCKS", "Totals", "block_numbers", "mean_interval", "summarise"]

MAX_BLOCKS = 200
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap interval."""
CHUNK = 4_000_000
"""Numbers of resampled totals held at once."""
Table = tuple[np.ndarray, np.ndarray]
"""Numbers of the blocks that hold something [b], and their totals [b, s]."""


def block_numbers(
    frames: list[np.ndarray], sources: list[list[tuple[int, int]]]
) -> list[np.ndarray]:
    """Block of each frame, numbered through all systems: per system int64 [F].

    frames: per system the rising frame numbers [F]. sources: per system the frame ranges (start,
    stop) of its files; no block crosses from one into another, unless there are more than
    `MAX_BLOCKS` in all: then neighbours are joined.
    """
    numbers, count = [], 0
    for chosen, ranges in zip(frames, sources, strict=True):
        own = np.empty(len(chosen), dtype=np.int64)
        for start, stop in ranges:
            inside = np.flatnonzero((chosen >= start) & (chosen < stop))
            own[inside] = count + np.arange(len(inside)) // max(1, int(len(inside) ** 0.5))
            count = own[inside[-1]] + 1 if len(inside) else count
        numbers.append(own)
    if count > MAX_BLOCKS:
        numbers = [own * MAX_BLOCKS // count for own in numbers]
    return numbers


class Totals:
    """Statistics of some metrics (see `reduction`), added up by block.

    ``blocks[metric][system][block]`` is one array [s]; systems are kept apart only where the
    reduction asks for it. Those of several ranks are joined with `take`.
    """

    def __init__(self, metrics: Iterable[Metric]):
        self.metrics = tuple(metrics)
        self.blocks: dict[str, dict[str, dict[int, np.ndarray]]] = {}

    def add(self, rows: dict[str, np.ndarray], system: str, blocks: np.ndarray) -> None:
        """Add rows [F, k] of each metric; ``blocks`` [F]: the block of each frame, not falling."""
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        for item in self.metrics:
            if item.name not in rows:
                continue
            statistics = item.reduce.statistics(rows[item.name])
            sums = item.reduce.join.reduceat(statistics, starts, axis=0)
            self._join(item, system, dict(zip(blocks[starts].tolist(), sums, strict=True)))

    def take(self, blocks: dict[str, dict[str, dict[int, np.ndarray]]]) -> None:
        """Join the ``blocks`` of totals of the same metrics."""
        for item in self.metrics:
            for system, sums in blocks.get(item.name, {}).items():
                self._join(item, system, sums)

    def _join(self, item: Metric, system: str, sums: dict[int, np.ndarray]) -> None:
        apart = system if item.reduce.per_system else ""
        known = self.blocks.setdefault(item.name, {}).setdefault(apart, {})
        for block, total in sums.items():
            known[block] = item.reduce.join(known[block], total) if block in known else total.copy()


def summarise(
    totals: Totals, n_blocks: int, bootstrap: int, seed: int
) -> dict[str, dict[str, Any]]:
    """``value``, ``unit``, ``std``, ``interval_95`` and ``n`` of every metric that has totals.

    The interval comes from ``bootstrap`` resamples of the blocks; None if there is one block only. The
    draws depend on the seed and the number of blocks alone, so rows of one table are paired.
    std: over structures, None unless the value is a mean; n: the structures with a value then.
    Undefined numbers are None.
    """
    draws = _draws(n_blocks, bootstrap, seed)
    return {
        item.name: _summary(item, totals.blocks[item.name], draws)
        for item in totals.metrics
        if item.name in totals.blocks
    }


def mean_interval(
    values: np.ndarray, blocks: np.ndarray, bootstrap: int, seed: int
) -> list[float] | None:
    """95 % interval of the mean of ``values`` [F], frames of one of ``blocks`` [F] drawn together.

    The draws are those of `summarise`. None with fewer than two blocks to draw from.
    """
    sums, sizes = np.bincount(blocks, weights=values), np.bincount(blocks)
    if not bootstrap or len(sums) < 2:
        return None
    draws = _draws(len(sums), bootstrap, seed)
    return _interval((draws @ sums) / (draws @ sizes))


def _draws(n_blocks: int, bootstrap: int, seed: int) -> np.ndarray:
    """How often each block is drawn in each resample, int64 [bootstrap, n_blocks]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=bootstrap)


def _interval(values: np.ndarray) -> list[float]:
    return [float(x) for x in np.percentile(values, INTERVAL)]


def _summary(
    item: Metric, systems: dict[str, dict[int, np.ndarray]], draws: np.ndarray
) -> dict[str, Any]:
    tables = [_table(sums) for _, sums in sorted(systems.items())]
    once = np.ones((1, draws.shape[1]), dtype=draws.dtype)
    values = _values(item, tables, draws) if draws.shape[1] > 1 else np.empty(0)
    values = values[np.isfinite(values)]
    value = _values(item, tables, once)[0]
    if item.reduce.skewed and values.size:
        values = np.maximum(values - (values.mean() - value), 0)
    summary = {
        "value": _number(value),
        "unit": item.unit,
        "std": None,
        "interval_95": _interval(values) if values.size else None,
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
        totals: np.ndarray = np.where(weights > 0, table[:, 0], -np.inf).max(1)[:, None]
    else:
        totals = weights @ table
    return totals


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
