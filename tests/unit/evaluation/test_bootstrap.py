"""Blocks that keep to files and grow with them; intervals that hold the mean as often as they say."""

import numpy as np
import pytest

from hpcbackmap.evaluation.bootstrap import MAX_BLOCKS, block_numbers, mean_interval


def test_blocks_do_not_cross_files_and_grow_as_the_root_of_the_frames():
    frames = [np.arange(0, 125), np.arange(10)]
    first, second = block_numbers(frames, [[(0, 100), (100, 125)], [(0, 10)]])
    assert np.unique(first[:100], return_counts=True)[1].tolist() == [10] * 10
    assert np.unique(first[100:], return_counts=True)[1].tolist() == [5] * 5
    assert not set(first[:100]) & set(first[100:])
    assert second.min() == first.max() + 1
    together = np.concatenate([first, second])
    assert (np.diff(together) >= 0).all()
    assert np.array_equal(np.unique(together), np.arange(together.max() + 1))


def test_of_many_systems_neighbours_share_blocks():
    frames = [np.arange(3)] * (3 * MAX_BLOCKS)
    numbers = np.concatenate(block_numbers(frames, [[(0, 3)]] * len(frames)))
    counts = np.bincount(numbers)
    assert len(counts) == MAX_BLOCKS
    assert counts.max() <= counts.min() + 3


def test_the_interval_holds_the_mean_of_correlated_frames():
    """An AR(1) process; single frames as blocks would give an interval that is four times too narrow."""
    rng, held, wide, narrow = np.random.default_rng(0), 0, [], []
    for _ in range(60):
        values = np.zeros(400)
        for k in range(1, 400):
            values[k] = 0.9 * values[k - 1] + rng.normal()
        (blocks,) = block_numbers([np.arange(400)], [[(0, 400)]])
        low, high = mean_interval(values, blocks, 200, 0)
        held += low < 0 < high
        wide.append(high - low)
        low, high = mean_interval(values, np.arange(400), 200, 0)
        narrow.append(high - low)
    assert held >= 48
    assert np.mean(wide) > 2.5 * np.mean(narrow)


def test_draws_follow_the_seed_and_one_block_has_no_interval():
    values, blocks = np.random.default_rng(1).normal(size=50), np.arange(50) // 5
    assert mean_interval(values, blocks, 100, 3) == mean_interval(values, blocks, 100, 3)
    assert mean_interval(values, blocks, 100, 3) != mean_interval(values, blocks, 100, 4)
    assert mean_interval(values, np.zeros(50, int), 100, 3) is None
    assert mean_interval(values, blocks, 0, 3) is None


@pytest.mark.parametrize("shift", [0.0, 7.5])
def test_an_interval_moves_with_the_values(shift):
    values, blocks = np.random.default_rng(2).normal(size=60), np.arange(60) // 6
    plain = np.array(mean_interval(values, blocks, 100, 0))
    assert mean_interval(values + shift, blocks, 100, 0) == pytest.approx(plain + shift)
