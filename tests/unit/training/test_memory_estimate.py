"""Memory of a training: blocks computed twice give the same numbers, estimates and what they advise."""

import re

import numpy as np
import pytest
import torch

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig, TraceConfig, TrainConfig
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.noise import frame_noise
from hpcbackmap.training.engine import Objective
from hpcbackmap.training.feed import StageInputs
from hpcbackmap.training.memory import RankBytes, activation_bytes, advice

SMALL = {"width": 24, "layers": 3}
MODELS = {
    "ca-fg": GenzprotConfig(steric_weight=0.1, coarse_noise=0.01, **SMALL),
    "ucg5-ca": CgvaeConfig(**SMALL),
    "ucg5-ca of many": TraceConfig(**SMALL),
}
FRAMES = 6


@pytest.fixture(scope="module")
def trpcage(example_run):
    frames = example_run[:FRAMES]
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "trpcage")
    positions = frames.xyz[:, index].astype(np.float64)
    return build_ladder(topology, ["fg", "ca", "ucg:5"], positions), positions


def make(name, trpcage, **train):
    """What the engine would run, and a batch for it."""
    ladder, positions = trpcage
    stage = build_stage(name.split()[0], MODELS[name], [ladder], seed=1)
    system = collate([stage.describe(ladder)])
    levels = ladder.coarsen(positions)
    fine, coarse = (torch.from_numpy(levels[it]).float() for it in (stage.fine, stage.coarse))
    with torch.no_grad():
        stage.calibrate(fine, coarse, system)
    noise = frame_noise(0, name, list(range(FRAMES)), 0, coarse.shape[1], stage.elbo_noise)
    inputs = StageInputs(fine, coarse, system, torch.from_numpy(noise), FRAMES)
    return Objective(stage, TrainConfig(**train)), inputs


@pytest.mark.trains
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", MODELS)
def test_activation_checkpointing_changes_memory_and_no_bit(trpcage, name, precision):
    found = {}
    for checkpointing in (False, True):
        objective, inputs = make(
            name, trpcage, precision=precision, activation_checkpointing=checkpointing
        )
        held = activation_bytes(objective, inputs)
        assert all(parameter.grad is None for parameter in objective.parameters())
        terms = objective(*inputs.arguments())
        terms["loss"].backward()
        gradients = {key: it.grad for key, it in objective.named_parameters()}
        with torch.no_grad():
            validation = objective.eval()(*inputs.arguments())
        found[checkpointing] = held, terms, validation, gradients
    (kept, *numbers), (less, *same) = found[False], found[True]
    assert less < 0.9 * kept
    for before, after in zip(numbers, same, strict=True):
        assert before.keys() == after.keys()
        for key, value in before.items():
            assert value is after[key] is None or torch.equal(value, after[key]), key


def test_bytes_of_a_pass_that_can_be_counted_by_hand():
    """tanh keeps its result for the backward pass; 1,000 numbers are 4,000 bytes."""

    class Tanhs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1000))

        def forward(self, *_):
            x = self.weight
            for _ in range(50):
                x = torch.tanh(x)
            return {"loss": x.sum()}

    inputs = StageInputs(*[None] * 4, n_frames=1)
    assert activation_bytes(Tanhs(), inputs) == pytest.approx(50 * 4000, rel=0.05)


def rows(activations: float, numbers: int) -> list[dict]:
    return [
        {
            "ranks": 4,
            "zero_stage": zero_stage,
            "activations": activations,
            "total": activations + RankBytes.of([numbers], zero_stage, 4).total,
        }
        for zero_stage in range(4)
    ]


@pytest.mark.parametrize(
    ("activations", "numbers", "left", "expected"),
    [
        (20e9, 1_000_000, 0.4, r"^ZeRO will not help: .* 0% of the 20,016 MB .* activation_check"),
        (20e9, 1_000_000, 0.9, r"^ZeRO will not help: .* rest: more ranks"),
        (1e9, 1_000_000_000, 0.4, r"^ZeRO 3 helps: .* 94% of the 17,000 MB .*; it saves 71%"),
        (1e6, 1_000_000, 0.4, r"^ZeRO is not needed: .* 94% of the 17 MB that each of 4 rank"),
    ],
)
def test_advice_says_plainly_whether_zero_helps(activations, numbers, left, expected):
    assert re.search(expected, advice(rows(activations, numbers), 1, left))
