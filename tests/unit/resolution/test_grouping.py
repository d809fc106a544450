"""Beads that are found by looking at structures."""

import numpy as np

from hpcbackmap.resolution.grouping import blobs


def test_three_clouds_are_three_blobs_wherever_they_drift():
    rng = np.random.default_rng(4)
    centres = np.array([[0.0, 0, 0], [3.0, 0, 0], [0.0, 4, 0]])
    whose = np.repeat([0, 1, 2], 5)
    frames = centres[whose] + 0.2 * rng.normal(size=(30, 15, 3)) + rng.normal(size=(30, 1, 3))
    assert np.array_equal(blobs(frames, 3, seed=0), whose)
    assert np.array_equal(blobs(frames[:, ::-1], 3, seed=1), whose), "numbered by first particle"


def test_no_blob_is_empty_even_of_particles_in_one_place():
    found = blobs(np.zeros((2, 6, 3)), 4, seed=0)
    assert set(found.tolist()) == {0, 1, 2, 3}
