"""Sizes of pieces, and what quantised positions come back as."""

import itertools

import numpy as np
import pytest

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.store.layout import chunk_frames, from_quanta, shard_frames, to_quanta


def test_quantised_positions_come_back_to_half_a_quantum_and_stay():
    positions = np.random.default_rng(0).uniform(-50, 50, (7, 11, 3)).astype(np.float32)
    positions[2, 3] = np.nan
    quanta = to_quanta(positions)
    back = from_quanta(quanta)
    assert np.isnan(back[2, 3]).all()
    assert np.isfinite(np.delete(back, 2, 0)).all()
    assert np.nanmax(np.abs(back - positions)) < 0.5001e-3, "nm"
    assert np.array_equal(to_quanta(back), quanta)
    assert to_quanta(quanta) is quanta


@pytest.mark.parametrize(("frames", "shard"), [(1, 1), (5, 8), (10**6, 8192)])
def test_a_shard_is_a_power_of_two_no_larger_than_needed(frames, shard):
    config = StoreConfig(shard_mb=64.0)
    assert shard_frames(600, frames, config) == shard
    assert shard_frames(10**9, frames, config) == 1


@pytest.mark.parametrize("shard", [1, 6, 64, 4096])
def test_chunks_divide_their_shard_and_grow_slowly(shard):
    chunks = chunk_frames([5000, 700, 20], shard, StoreConfig(chunk_mb=1.0))
    assert all(shard % chunk == 0 for chunk in chunks)
    assert all(after <= 4 * before for before, after in itertools.pairwise(chunks))
