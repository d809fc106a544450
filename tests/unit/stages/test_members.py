"""Members of one frame share what the coarse frame alone tells; they are the same drawn one by one."""

import numpy as np
import pytest
import torch

from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.build import build_stage

SMALL = {"width": 16, "layers": 1}
FRAMES = [4, 9, 11]


@pytest.fixture(scope="module")
def protein(example_run):
    """Topology and positions float32 [F, A, 3]."""
    loaded = example_run[: len(FRAMES)]
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "trpcage")
    return topology, loaded.xyz[:, index]


def chain_of(protein, specs):
    topology, positions = protein
    ladder = build_ladder(topology, specs, positions)
    kinds = {"ca-fg": GenzprotConfig(**SMALL), "ucg5-ca": CgvaeConfig(latent=3, **SMALL)}
    names = [
        f"{coarse}-{fine}"
        for fine, coarse in zip(ladder.resolutions, ladder.resolutions[1:], strict=False)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = [build_stage(name, kinds[name], [ladder], 1) for name in reversed(names)]
    return Chain(stages, ladder, torch.device("cpu")), ladder.coarsen(positions)[
        ladder.resolutions[-1]
    ]


@pytest.mark.parametrize("specs", [["fg", "ca"], ["fg", "ca", "ucg:5"]])
def test_members_together_are_those_one_by_one(protein, specs):
    chain, coarse = chain_of(protein, specs)
    coarse = coarse.astype(np.float32)
    together = chain.run_members(coarse, FRAMES, [0, 3, 7], seed=5)
    for member, levels in zip((0, 3, 7), together, strict=True):
        (alone,) = chain.run_members(coarse, FRAMES, [member], seed=5)
        assert alone.keys() == levels.keys()
        for name, positions in alone.items():
            assert np.array_equal(levels[name], positions), f"member {member}, {name}"
    first, second = (levels["fg"] for levels in together[:2])
    assert np.abs(first - second).max() > 0.05, "members differ"


def test_context_is_computed_once_for_all_members(protein, monkeypatch):
    chain, coarse = chain_of(protein, ["fg", "ca"])
    (stage,) = chain.stages
    passes = []
    trunk = stage.trunk.forward
    monkeypatch.setattr(stage.trunk, "forward", lambda *x: (passes.append(1), trunk(*x))[1])
    chain.run_members(coarse.astype(np.float32), FRAMES, range(4), seed=0)
    assert len(passes) == 1
