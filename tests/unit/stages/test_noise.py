"""Noise of a frame: standard normal, the same whoever asks for it, smooth along a trajectory where asked."""

import numpy as np
import pytest
from scipy import stats

from hpcbackmap.stages.noise import Coherence, frame_noise


def test_noise_depends_on_its_key_alone():
    block = frame_noise(1, "ca-fg", [5, 6, 7], 0, 10, 4)
    np.testing.assert_array_equal(block[1], frame_noise(1, "ca-fg", [6], 0, 10, 4)[0])
    for other in (
        frame_noise(2, "ca-fg", [6], 0, 10, 4),
        frame_noise(1, "ucg-ca", [6], 0, 10, 4),
        frame_noise(1, "ca-fg", [6], 1, 10, 4),
        frame_noise(1, "ca-fg", [8], 0, 10, 4),
    ):
        assert abs(np.corrcoef(block[1].ravel(), other.ravel())[0, 1]) < 0.5
    many = frame_noise(0, "x", list(range(2000)), 0, 5, 4).reshape(2000, -1)
    correlation = np.corrcoef(many[:-1].ravel(), many[1:].ravel())[0, 1]
    assert abs(correlation) < 0.02, "consecutive frames are independent"
    assert abs(many.std() - 1) < 0.01


def test_coherent_noise_is_white_noise_smoothed_to_unit_variance():
    """Normal in every frame, correlated as said, the same whatever other frames are asked for."""
    key = (3, "ca-fg")
    assert np.array_equal(
        frame_noise(*key, [4, 9], 1, 6, 5, Coherence(1, 3)), frame_noise(*key, [4, 9], 1, 6, 5)
    )
    coherence = Coherence(6, 2)
    frames = list(range(0, 6000, 2))
    noise = frame_noise(*key, frames, 0, 6, 20, coherence)
    for some in ([0, 2, 4], [10], [5998, 2]):
        rows = [frames.index(frame) for frame in some]
        assert np.array_equal(frame_noise(*key, some, 0, 6, 20, coherence), noise[rows])
    flat = noise.reshape(len(frames), -1).astype(np.float64)
    assert stats.kstest(flat[::12].ravel(), "norm").pvalue > 0.01, "12 frames apart: independent"
    assert abs(flat.std() - 1) < 0.01
    found = [(flat[:-lag] * flat[lag:]).mean() for lag in (1, 6, 12)]
    np.testing.assert_allclose(found, [0.95, 1 / 6, 0.0], atol=0.02)
    other = frame_noise(*key, frames, 1, 6, 20, coherence).reshape(len(frames), -1)
    assert abs((flat * other).mean()) < 0.02


@pytest.mark.parametrize("frames", [2, 20])
def test_the_first_frames_of_coherent_noise_vary_as_all_others(frames):
    noise = frame_noise(3, "ca-fg", list(range(frames)), 0, 500, 20, Coherence(frames, 3))
    np.testing.assert_allclose(noise.std((1, 2)), 1, atol=0.03)
