"""Numbers of a table with intervals over chains, and gaps to one row, of the same chains."""

from typing import NamedTuple

import numpy as np
from judged import MEASURES, ONE

from hpcbackmap.evaluation.bootstrap import Totals, summarise
from hpcbackmap.metrics.reduction import MEAN

__all__ = ["Value", "gaps_of", "table_of"]

BOOTSTRAP = 2000
MEDIANS = frozenset({"energy_kj_per_mol_per_residue"})


class Value(NamedTuple):
    value: float
    low: float
    high: float


def table_of(chains: list[dict]) -> dict[str, dict[str, Value]]:
    """Value and 95 % interval of each measure, by method; chains: what `judge_chain` returned."""
    found = {}
    for method in chains[0]:
        totals = Totals(item for item in MEASURES if item.name not in MEDIANS)
        for number, chain in enumerate(chains):
            rows = {name: _numbers(row)[None] for name, row in chain[method].items()}
            totals.add(rows, str(number), np.array([number]))
        summary = summarise(totals, len(chains), BOOTSTRAP, 0)
        found[method] = {
            name: Value(each["value"], *(each["interval_95"] or [each["value"]] * 2))
            for name, each in summary.items()
            if each["value"] is not None
        }
        for name in MEDIANS:
            values = _per_chain(chains, method, name)
            if len(values[np.isfinite(values)]):
                found[method][name] = _bootstrapped(values, np.nanmedian)
    return found


def gaps_of(chains: list[dict], base: str) -> dict[str, dict[str, Value]]:
    """The same of each ladder less ``base`` of the same chains, members less members, one answer less its."""
    found = {}
    for method in chains[0]:
        other = base + (ONE if method.endswith(ONE) else "")
        if method == other or "cpu_ms" not in chains[0][method.removesuffix(ONE)]:
            continue
        found[method] = {}
        for item in MEASURES:
            if item.reduce is not MEAN:
                continue
            gap = _per_chain(chains, method, item.name) - _per_chain(chains, other, item.name)
            if len(gap[np.isfinite(gap)]):
                middle = np.nanmedian if item.name in MEDIANS else np.nanmean
                found[method][item.name] = _bootstrapped(gap, middle)
    return found


def _per_chain(chains: list[dict], method: str, name: str) -> np.ndarray:
    """Mean over the members of each chain; NaN where there is none."""
    rows = [_numbers(chain[method].get(name, [])) for chain in chains]
    return np.array([np.nanmean(x) if np.isfinite(x).any() else np.nan for x in rows])


def _numbers(row: list) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in row], dtype=np.float64)


def _bootstrapped(values: np.ndarray, middle) -> Value:
    known = values[np.isfinite(values)]
    draws = np.random.default_rng(0).integers(len(known), size=(BOOTSTRAP, len(known)))
    low, high = np.percentile(middle(known[draws], axis=1), (2.5, 97.5))
    return Value(float(middle(known)), float(low), float(high))
