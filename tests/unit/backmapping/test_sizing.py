"""How much memory a batch takes."""

import numpy as np
import pytest
import torch

from hpcbackmap.backmapping import sizing

MEGABYTES = 48
"""That a frame takes while it is computed, and that are free again afterwards."""


class Hungry:
    """Stands for a chain: takes memory by the frame and keeps none."""

    device = torch.device("cpu")

    def run_members(self, coarse, frames, members, seed):
        blocks = [np.ones(2**17) for _ in range(MEGABYTES * len(coarse))]
        assert len(blocks) == MEGABYTES * len(coarse)


@pytest.mark.trains
@pytest.mark.parametrize("frames", [[4], [4, 8], [2, 4]])
def test_a_batch_is_charged_all_that_it_takes(frames):
    """Not only what it takes more than the batch before, whose memory the process has kept."""
    for count in frames:
        _, taken = sizing._measure(Hungry(), np.zeros((count, 3, 3)), [0])
    assert 0.9 * MEGABYTES * count < taken / 2**20 < 1.5 * MEGABYTES * count


def test_the_peak_of_a_gpu_is_reset_before_it_is_read(monkeypatch):
    state = {"now": 5, "peak": 100}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: state["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: state["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: state.update(peak=5))

    class OnGpu(Hungry):
        device = torch.device("cuda", 0)

        def run_members(self, coarse, frames, members, seed):
            state["peak"] = max(state["peak"], 5 + 7 * len(coarse))

    assert sizing._measure(OnGpu(), np.zeros((2, 3, 3)), [0])[1] == 14
