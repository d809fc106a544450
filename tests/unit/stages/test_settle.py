"""One answer: side chains that run into others settle by likelihood and overlap together."""

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.torsions import well
from hpcbackmap.stages.noise import frame_noise

SHARPER = 8.0
"""As where one protein has been learned by heart."""
MEMBERS = 4


@pytest.fixture(scope="module")
def sure(data_dir):
    """A stage that is sure of its rotamers, its system, and the C-alpha trace of adenylate kinase."""
    loaded = mdtraj.load(str(data_dir / "adenylate_kinase" / "adk_dims_d_top.pdb"))
    topology, order, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "adk")
    stage = load_artifact(shipped_artifact())
    with torch.no_grad():
        for head in stage.packing.heads:
            head[2].weight.mul_(SHARPER)
            head[2].bias.mul_(SHARPER)
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    coarse = torch.from_numpy(loaded.xyz[:1, order][:, topology.ca_index])
    return stage, system, coarse - coarse.mean(1, keepdim=True)


def members(stage, system, coarse):
    shape = (coarse.shape[1], stage.noise_width)
    noises = [frame_noise(0, "settle", [0], member, *shape) for member in range(MEMBERS)]
    return torch.cat(stage.samples(coarse, system, [torch.from_numpy(one) for one in noises]))


def test_one_answer_is_no_worse_than_the_mean_member(sure):
    """Members of the same distribution stand for the truth, one after the other."""
    stage, system, coarse = sure
    drawn, answer = members(stage, system, coarse), stage.mode(coarse, system)

    def apart(x, y):
        return float((x - y).square().sum(-1).mean().sqrt())

    pairs = [apart(a, b) for i, a in enumerate(drawn) for b in drawn[:i]]
    assert np.mean([apart(answer[0], truth) for truth in drawn]) < np.mean(pairs)


def test_a_rotamer_has_its_share_and_its_width():
    degrees = torch.arange(36) * 10.0 - 175.0
    narrow = -0.5 * ((degrees - 65) / 12) ** 2
    wide = -0.5 * ((degrees + 60) / 20) ** 2
    logits = torch.logaddexp(narrow - np.log(12), wide - np.log(3 * 20))
    angle = torch.deg2rad(torch.tensor([65.0, -60.0]))
    share, width = well(logits.expand(2, -1), angle)
    assert share.tolist() == pytest.approx([0.75, 0.25], abs=0.01)
    assert torch.rad2deg(width).tolist() == pytest.approx([12, 20], rel=0.05)
