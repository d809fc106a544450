"""Traces of one protein mended by the shipped denoiser: as far as held-out frames say, and no farther."""

import pytest
import torch
from beads_of_example import BEADS, beads_of_example

from hpcbackmap.config.campaign import CgvaeConfig
from hpcbackmap.config.conversion import current_identity
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import (
    build_described,
    load_artifact,
    save_artifact,
    stage_description,
)
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.cgvae.mending import Mending, can_mend
from hpcbackmap.stages.cgvae.model import Cgvae
from hpcbackmap.stages.layers.close_trace import close_calpha, recentre
from hpcbackmap.stages.layers.pooling import bead_sums

RUNG = "ca", f"ucg{BEADS}"


@pytest.fixture
def example(example_dir):
    """Ladder, system, C-alpha traces and beads of 24 frames."""
    beads, sequence, _, calpha = beads_of_example(example_dir, 24)
    ladder = build_ladder(topology_from_sequence([sequence]), ["fg", "ca", f"ucg:{BEADS}"])
    system = collate([Cgvae(*RUNG, CgvaeConfig(), ladder).describe(ladder)])
    return ladder, system, torch.from_numpy(calpha).float(), torch.from_numpy(beads.xyz).float()


def members(system, calpha, width):
    """Two traces a frame, as a stage makes them that is unsure of each residue by ``width`` nm."""
    generator = torch.Generator().manual_seed(0)
    straight = torch.zeros(len(system.bond_index), dtype=torch.bool)
    noise = (width * torch.randn(calpha.shape, generator=generator) for _ in range(2))
    return [close_calpha(calpha + recentre(each, system), system, straight) for each in noise]


def missed(trace, calpha, offset):
    """Root mean square error, nm, of places, or of distances of residues so many apart."""
    if not offset:
        return float((trace - calpha).square().sum(-1).mean().sqrt())
    far, right = ((x[:, offset:] - x[:, :-offset]).norm(dim=-1) for x in (trace, calpha))
    return float((far - right).square().mean().sqrt())


def fitted(example, width):
    ladder, system, calpha, beads = example
    mending = Mending(ladder, *RUNG)
    drawn, straight = members(system, calpha, width), torch.zeros(19, dtype=torch.bool)
    mending.fit(drawn, calpha, beads, straight)
    return mending, drawn[0], mending(drawn[0], beads, straight)


def test_unsure_traces_come_nearer_and_keep_beads_and_links(example):
    _, system, calpha, beads = example
    mending, before, after = fitted(example, 0.12)
    assert mending.width > 0.05
    assert missed(after, calpha, 0) < missed(before, calpha, 0)
    assert missed(after, calpha, 3) < 0.9 * missed(before, calpha, 3)
    centres = bead_sums(after, system) / system.members.unsqueeze(-1)
    torch.testing.assert_close(centres, beads, atol=1e-5, rtol=0)
    links = after.diff(dim=1).norm(dim=-1)
    assert (links - 0.38).abs().max() < 0.02


def test_what_is_right_already_is_left_alone(example):
    mending, before, after = fitted(example, 0.002)
    assert mending.width == 0
    assert after is before


@pytest.mark.parametrize(("beads", "known"), [("ucg:5", True), ("ucg:5:mass", False)])
def test_only_beads_that_are_means_of_calpha_atoms_are_mended(beads, known):
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIKLMN"]), ["fg", "ca", beads])
    assert can_mend(ladder, "ca", ladder.resolutions[2]) is known


def test_only_calpha_traces_are_mended():
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIKLMN"]), ["fg", "ucg:5"])
    assert not can_mend(ladder, "fg", "ucg5")


def test_an_artifact_keeps_the_weights_that_it_was_fitted_with(example, tmp_path):
    """They are not parameters: training does not see them, and other shipped weights change nothing."""
    ladder, system, calpha, beads = example
    stage = Cgvae(*RUNG, CgvaeConfig(width=16, layers=1), ladder).eval()
    with torch.no_grad():
        stage.calibrate(calpha, beads, system)
    assert not [name for name, _ in stage.named_parameters() if "mending" in name]
    stage.mending.width.fill_(0.2)
    again = load_artifact(save_artifact(stage, tmp_path / "artifact", {}))
    assert float(again.mending.width) == pytest.approx(0.2)
    with torch.no_grad():
        assert torch.equal(again.mode(beads, system), stage.mode(beads, system))
        assert not torch.equal(again.mode(beads, system), again._relaxed(calpha, system))


def test_stages_and_trainings_of_before_are_not_mended(example):
    stage = Cgvae(*RUNG, CgvaeConfig(width=16, layers=1), example[0])
    description = stage_description(stage)
    del description["model"]["mended"]
    assert build_described(description).mending is None
    identity = {"stage": stage.name, "model": description["model"]}
    assert current_identity(identity)["model"]["mended"] is False
