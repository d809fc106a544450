"""The recipe of the shipped trace stage: its optimiser, and a training that is stopped and goes on."""

import itertools

import pytest
import torch
from torch import nn

from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks" / "recipes"))


@pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with"
)
@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_muon_is_that_of_torch_in_single_precision(shape):
    import train_trace

    torch.manual_seed(0)
    start = torch.randn(2, *shape)
    ours, theirs = ([nn.Parameter(each.clone()) for each in start] for _ in range(2))
    muon = train_trace.Muon
    settings = {"weight_decay": muon.DECAY, "momentum": muon.MOMENTUM, "ns_steps": muon.TURNS}
    optimisers = muon(ours, 0.02), torch.optim.Muon(theirs, 0.02, **settings)
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(shape)
            other.grad = one.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for one, other, before in zip(ours, theirs, start, strict=True):
        moved = (one - before).norm()
        assert moved > 0.05
        assert (one - other).norm() < 0.02 * moved, "bfloat16 has three digits"


def test_a_training_that_was_stopped_goes_on(tmp_path, monkeypatch):
    import by_the_minute

    clock = itertools.count()
    monkeypatch.setattr(by_the_minute.time, "process_time", lambda: float(next(clock)))

    def run(seconds):
        module = nn.Linear(2, 1, bias=False)
        nn.init.zeros_(module.weight)
        made = by_the_minute.Run(
            module, [torch.optim.SGD(module.parameters(), 0.1)], tmp_path / "c.pt", seconds
        )
        begun = made.step, module.weight.detach().clone()
        told = made.train(itertools.repeat(torch.ones(2)), lambda x: {"loss": (module(x) - 1) ** 2})
        return made, begun, told, module.weight.detach()

    first, begun, told, _ = run(60)
    assert begun[0] == 0
    assert 55 <= told["steps"] <= 60
    assert first.optimisers[0].param_groups[0]["lr"] < 0.05, "the rate falls at the end"
    kept = torch.load(tmp_path / "c.pt")["weights"]["weight"]
    second, begun, told, weight = run(300)
    assert begun[0] == first.step
    assert torch.equal(begun[1], kept)
    assert told["steps"] > 250
    assert float((weight.sum() - 1).abs()) < 1e-2
    assert torch.equal(weight, second.average["weight"])
