"""From rows per frame to one number: parts add up, and what is not defined counts as nothing."""

import numpy as np
import pytest

from hpcbackmap.metrics.reduction import DIVERSITY, LARGEST, MEAN, ROOT_RATIO, divergence

ROWS = np.random.default_rng(0).gamma(2.0, size=(40, 2))
HOLES = np.where(np.random.default_rng(1).random(ROWS.shape) < 0.2, np.nan, ROWS)
WHOLE = HOLES[np.isfinite(HOLES).all(1)]
HISTOGRAMS = np.random.default_rng(2).integers(0, 5, size=(40, 2 * 2 * 3)).astype(float)


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first / first.sum(), second / second.sum()
    middle = (first + second) / 2
    parts = [(it * np.log(it / middle)).sum() for it in (first, second)]
    return sum(parts) / 2


def of_histograms(rows: np.ndarray) -> float:
    """Two angles of three bins, each generated and true."""
    counts = rows.sum(0).reshape(2, 2, 3)
    return float(np.mean([jensen_shannon(made, true) for made, true in counts]))


CASES = [
    (MEAN, HOLES, np.nanmean(HOLES)),
    (LARGEST, HOLES, np.nanmax(HOLES)),
    (DIVERSITY, HOLES, 1 - WHOLE[:, 0].sum() / WHOLE[:, 1].sum()),
    (ROOT_RATIO, HOLES, np.sqrt(WHOLE[:, 0].sum() / WHOLE[:, 1].sum())),
    (divergence(3), HISTOGRAMS, of_histograms(HISTOGRAMS)),
]
NAMES = ["mean", "largest", "diversity", "root of a ratio", "divergence"]


@pytest.mark.parametrize(("reduction", "rows", "expected"), CASES, ids=NAMES)
def test_the_number_of_all_frames(reduction, rows, expected):
    assert reduction(rows) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("reduction", "rows", "expected"), CASES, ids=NAMES)
def test_blocks_of_any_lengths_come_to_the_same(reduction, rows, expected):
    """As ranks and the bootstrap add them up."""
    blocks = np.split(rows, [1, 4, 30])
    totals = [reduction.join.reduce(reduction.statistics(block), axis=0) for block in blocks]
    numerator, denominator = reduction.parts(reduction.join.reduce(totals, axis=0))
    assert numerator / denominator == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("reduction", [MEAN, LARGEST, DIVERSITY, ROOT_RATIO])
def test_without_a_defined_entry_there_is_no_number(reduction):
    assert np.isnan(reduction(np.full((3, 2), np.nan)))
