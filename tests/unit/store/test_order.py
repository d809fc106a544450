"""The order of frames in an epoch."""

import numpy as np

from hpcbackmap.store.order import ClusterOrder, FrameOrder

LENGTHS = np.array([4, 7, 1, 12])


def shown(order, epoch, piece):
    parts = [
        order.places(epoch, first, min(piece, order.n_samples - first))
        for first in range(0, order.n_samples, piece)
    ]
    return np.concatenate([np.stack(part, 1) for part in parts])


def test_every_frame_is_shown_once_in_an_epoch():
    every = {(block, row) for block, length in enumerate(LENGTHS) for row in range(length)}
    for shuffle in (False, True):
        order = FrameOrder(LENGTHS, 3, 1, shuffle)
        for epoch in (0, 1):
            places = shown(order, epoch, 10)
            assert len(places) == LENGTHS.sum()
            assert set(map(tuple, places.tolist())) == every


def test_stored_order_is_that_of_the_blocks_and_mixed_hangs_on_seed_and_epoch():
    stored = shown(FrameOrder(LENGTHS, 3, 1, False), 5, 24)
    assert np.array_equal(stored, stored[np.lexsort(stored.T[::-1])])
    mixed = [
        shown(FrameOrder(LENGTHS, 3, seed, True), epoch, 24).tolist()
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    ]
    assert mixed[0] == mixed[1]
    assert mixed[0] not in mixed[2:]


def test_of_each_cluster_one_system_a_turn():
    systems = ["a", "a", "b", "c"]
    order = ClusterOrder(systems, LENGTHS, {"a": "large", "b": "large"}, 3)
    assert order.n_samples == 2
    for cycle in range(5):
        seen = []
        for epoch in (2 * cycle, 2 * cycle + 1):
            places = shown(order, epoch, 1)
            assert all(row < LENGTHS[block] for block, row in places)
            seen += [systems[block] for block in places[:, 0]]
        assert sorted(seen) == ["a", "b", "c", "c"]
