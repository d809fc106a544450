"""Biases on the torsions of single residues: what is observed is what is expected with them."""

import math

import pytest
import torch

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.genzprot.ideal_geometry import internal_of
from hpcbackmap.stages.genzprot.torsion_bias import STRENGTH, Observed, frames_to_observe
from hpcbackmap.stages.noise import frame_noise
from tests.unit.stages.test_heavy_atoms import read

BINS, FRAMES = 36, 400


def observed():
    """400 frames of residue 0, whose logits vary, 4 of residue 2, none of residue 1; logits and bins."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(FRAMES + 4, BINS, generator=generator, dtype=torch.float64)
    bins = torch.cat([torch.randint(5, 9, (FRAMES,), generator=generator), torch.full((4,), 20)])
    residue = torch.tensor([0] * FRAMES + [2] * 4)
    found = Observed()
    angle = (bins + 0.5) * 2 * math.pi / BINS - math.pi
    found.add(logits[:7], angle[:7], residue[:7])
    found.add(logits[7:], angle[7:], residue[7:])
    return found, logits, bins, residue


def test_expected_frequencies_become_the_observed_ones():
    found, logits, bins, residue = observed()
    bias = found.bias(3)
    for which, count in ((0, FRAMES), (2, 4)):
        rows = residue == which
        seen = torch.bincount(bins[rows], minlength=BINS)
        prior = STRENGTH * logits[rows].softmax(-1).mean(0)
        expected = (logits[rows] + bias[which]).softmax(-1).mean(0)
        assert expected == pytest.approx((seen + prior) / (count + STRENGTH), abs=1e-4)
    assert torch.equal(bias[1], torch.zeros(BINS, dtype=torch.float64)), (
        "nothing was observed of it"
    )


def test_few_frames_of_a_large_protein_and_more_of_a_small_one():
    assert frames_to_observe(20) == 819
    assert frames_to_observe(50_000) == 16


def test_members_turn_as_often_as_the_frames_do(data_dir):
    """An untrained network, whose members turn anyhow, against the NMR models that it is calibrated by."""
    topology, fine = read(data_dir / "nmr" / "1sb0_nmr.pdb.gz", 20)
    fine = fine.float()
    ladder = build_ladder(topology, ["fg", "ca"])
    config = GenzprotConfig(width=16, layers=1, per_system=True, redraws=0)
    stage = build_stage("ca-fg", config, [ladder], 0)
    system = collate([stage.describe(ladder)])
    coarse = fine[:, topology.ca_index]
    noise = torch.from_numpy(
        frame_noise(0, "x", [*range(20)], 0, coarse.shape[1], stage.noise_width)
    )

    def right():
        """Share of chi1 within 40 degrees of the same frame's."""
        made = stage.sample(coarse, system, noise.float())
        turn, true = (
            internal_of(x, system)[:, system.torsion_index[:, Role.CHI1], 2] for x in (made, fine)
        )
        near = torch.cos(turn - true) > math.cos(math.radians(40))
        return float(near[:, system.torsion_mask[:, Role.CHI1]].float().mean())

    before = right()
    stage.calibrate(fine, coarse, system)
    assert right() > before + 0.25
