"""Totals of statistics by block of the bootstrap: memory does not grow with the number of frames."""

from collections.abc import Iterable

import numpy as np

from hpcbackmap.metrics.registry import Metric

__all__ = ["Totals"]


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
