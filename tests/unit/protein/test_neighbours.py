"""Close pairs: by all distances and by a tree they are the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcbackmap.protein import neighbours


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 2**32 - 1))
def test_few_and_many_points_have_the_same_pairs(count, seed):
    points = np.random.default_rng(seed).integers(0, 6, (count, 3)) * 0.25
    dense = neighbours.pairs_within(points, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "FEW", -1)
        tree = neighbours.pairs_within(points, 0.5)
    assert dense.dtype == tree.dtype == np.int64
    assert dense.shape[1] == 2
    assert (dense[:, 0] < dense[:, 1]).all()
    assert set(map(tuple, dense)) == set(map(tuple, tree))
    assert len(dense) == len(tree)


def test_single_precision_is_compared_in_double():
    points = np.array([[1e4, 0, 0], [1e4 + 0.5, 0, 0]], np.float32)
    assert neighbours.pairs_within(points, 0.5).tolist() == [[0, 1]]
    assert neighbours.pairs_within(points, 0.499).tolist() == []
