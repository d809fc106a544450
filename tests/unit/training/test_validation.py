"""Validation is a mean over frames, whoever computes which batch."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hpcbackmap.training.validation import share_of_rank, validate

SIZES = (4, 4, 4, 4, 1)


def batches():
    """Their losses are their numbers."""
    return [
        SimpleNamespace(n_frames=size, arguments=lambda number=number: (float(number),))
        for number, size in enumerate(SIZES)
    ]


class Engine:
    """Of DeepSpeed's engine what `validate` uses."""

    def __init__(self):
        self.modes = []

    def eval(self):
        self.modes.append("eval")

    def train(self):
        self.modes.append("train")

    def __call__(self, number):
        return {"loss": torch.tensor(number), "steric": torch.tensor(9.0), "kl": torch.tensor(1.0)}


@pytest.mark.parametrize("world", [1, 2, 3, 5, 7])
def test_ranks_share_every_frame_once_in_equally_many_forward_passes(world):
    all_of_them = batches()
    shares = [share_of_rank(all_of_them, rank, world) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1, "under ZeRO 3 a forward pass is a meeting"
    weights = np.zeros(len(SIZES))
    for batch, weight in (pair for share in shares for pair in share):
        weights[all_of_them.index(batch)] += weight
    assert weights.tolist() == list(SIZES)


@pytest.mark.parametrize("world", [1, 3])
def test_a_small_last_batch_weighs_what_it_holds(monkeypatch, world):
    """Summed over ranks as torch would do it."""
    sums, expected = [], np.average(range(len(SIZES)), weights=SIZES)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda mine: sums.append(mine.clone()))
    for rank in range(world):
        engine = Engine()
        found = validate(engine, share_of_rank(batches(), rank, world))
        assert engine.modes == ["eval", "train"]
        assert found.keys() == {"loss", "kl"}
    if world == 1:
        assert found == pytest.approx({"loss": expected, "kl": 1.0})
    else:
        loss, kl, frames = torch.stack(sums).sum(0).tolist()
        assert (loss / frames, kl / frames) == pytest.approx((expected, 1.0))


def test_without_frames_there_is_nothing_to_share():
    assert share_of_rank([], 0, 2) == []
