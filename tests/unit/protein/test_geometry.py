"""The two superpositions are one."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hpcbackmap.protein.geometry import superpose, superposed, turned


@pytest.mark.parametrize("mirrored", [False, True])
def test_arrays_and_tensors_are_superposed_alike(mirrored):
    random = np.random.default_rng(0)
    target = random.normal(size=(12, 3))
    target -= target.mean(0)
    turns = Rotation.random(5, random_state=1).as_matrix()
    mobile = np.einsum("fij,bj->fbi", turns, target) + random.normal(size=(5, 1, 3))
    mobile += 0.1 * random.normal(size=mobile.shape)
    if mirrored:
        mobile = -mobile
    one = superpose(mobile, np.broadcast_to(target, mobile.shape))
    other = superposed(torch.from_numpy(mobile), torch.from_numpy(target)).numpy()
    np.testing.assert_allclose(one, other, atol=1e-12)
    rotations = turned(
        torch.from_numpy(mobile), torch.from_numpy(target), torch.ones(1, 12).double()
    )
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(5, 1).double())
    for frame, moved in zip(mobile, one, strict=True):
        best, _ = Rotation.align_vectors(target, frame - frame.mean(0))
        np.testing.assert_allclose(best.apply(frame - frame.mean(0)), moved, atol=1e-9)
