"""The Cartesian stage for C-alpha traces of many proteins, and what keeps traces physical."""

import numpy as np
import pytest
import torch

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.cgvae.elastic import ANCHOR, ElasticNetwork
from hpcbackmap.stages.layers import geometry
from hpcbackmap.stages.layers.close_trace import close_calpha
from hpcbackmap.stages.trace.energy_score import local_shape, other_noise, trace_scores
from hpcbackmap.stages.trace.network import near_residues
from hpcbackmap.stages.trace.spline import spline_weights

SMALL = {"width": 16, "layers": 1, "rounds": 2, "neighbours": 6, "denoiser": 8}


def helix(n, hand=1):
    """Ideal alpha helix of C-alpha atoms, nm [n, 3]; hand = -1 for the mirror image."""
    angle = np.radians(100) * np.arange(n) * hand
    return np.stack([0.23 * np.cos(angle), 0.23 * np.sin(angle), 0.15 * np.arange(n)], 1)


def case(sequences=("ACDEFGHIKLMNPQRSTVWY",), per=4, dtype=torch.float64, **options):
    """Stage with random weights everywhere, its ladders, batch, helices as fine, coarse, and noise."""
    ladders = [
        build_ladder(topology_from_sequence([s]), ["fg", "ca", f"ucg:/{per}"]) for s in sequences
    ]
    stage = build_stage(f"ucgr{per}-ca", TraceConfig(**{**SMALL, **options}), ladders, 0).to(dtype)
    system = collate([stage.describe(ladder) for ladder in ladders])
    system = system.apply(lambda x: x.to(dtype) if x.is_floating_point() else x)
    fine = [helix(len(s)) for s in sequences]
    coarse = [each.mapping(stage.coarse).apply(x) for each, x in zip(ladders, fine, strict=True)]
    fine, coarse = (torch.from_numpy(np.concatenate(x))[None].to(dtype) for x in (fine, coarse))
    stage.calibrate(fine, coarse, system)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in stage.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        noise = torch.randn(1, coarse.shape[1], stage.noise_width, dtype=dtype)
    return stage, ladders, system, fine, coarse, noise


def turn():
    matrix = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    )[0]
    return matrix * torch.linalg.det(matrix)


def test_moves_with_the_beads_keeps_them_and_is_not_mirrored():
    stage, ladders, system, fine, coarse, noise = case()
    rotation, shift = turn(), torch.tensor([0.3, -0.2, 0.1]).double()
    mirror = torch.tensor([1.0, 1.0, -1.0]).double()
    with torch.no_grad():
        z = noise[..., : stage.latent]
        plain = stage.decode(z, coarse, system)
        moved = stage.decode(z, coarse @ rotation.T + shift, system)
        mirrored = stage.decode(z, coarse * mirror, system)
        elbo = [
            stage.elbo(fine @ t.T, coarse @ t.T, system, noise).total
            for t in (rotation, torch.eye(3).double())
        ]
        sample = stage.sample(coarse, system, noise)
    torch.testing.assert_close(moved, plain @ rotation.T + shift)
    torch.testing.assert_close(*elbo)
    assert float((mirrored * mirror - plain).abs().max()) > 1e-3
    beads = ladders[0].mapping(stage.coarse).apply(sample[0].numpy())
    assert np.abs(beads - coarse[0].numpy()).max() < 1e-7


def test_a_protein_does_not_see_the_others_of_its_batch():
    sequences = ("ACDEFGHIKLMNPQRSTVWY", "GGPGGAAGGWGGLLG", "MKVLAAGIVGLCAKTW")
    stage, ladders, system, _, coarse, noise = case(sequences)
    with torch.no_grad():
        together = stage.sample(coarse, system, noise)
        bead = particle = 0
        for ladder, sequence in zip(ladders, sequences, strict=True):
            beads = slice(bead, bead := bead + ladder.n_particles(stage.coarse))
            own = collate([stage.describe(ladder)])
            own = own.apply(lambda x: x.double() if x.is_floating_point() else x)
            alone = stage.sample(coarse[:, beads], own, noise[:, beads])
            torch.testing.assert_close(together[:, particle : particle + len(sequence)], alone)
            particle += len(sequence)


@pytest.mark.trains
def test_learns_helices_of_the_right_hand_from_their_beads():
    """Overfits one helix; draws and the one answer are right-handed, and cis links are not invented."""
    stage, _, system, fine, coarse, noise = case(dtype=torch.float32, width=24, denoiser=0)
    optimiser = torch.optim.Adam(stage.parameters(), 5e-3)
    for step in range(90):
        stage.at_step(step)
        terms = stage.loss(fine, coarse, system, noise)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        made = [stage.sample(coarse, system, noise), stage.mode(coarse, system)]
    for trace in made:
        step = np.diff(trace[0].double().numpy(), axis=0)
        volume = (np.cross(step[:-2], step[1:-1]) * step[2:]).sum(-1)
        assert (volume > 0).mean() > 0.9
        assert np.abs(np.linalg.norm(step, axis=-1) - 0.38).max() < 0.02


def test_scores_prefer_draws_spread_as_the_truth():
    """Truth from a normal of spread 1 about a helix: among draws of other spreads, each score is least at 1."""
    _, _, system, fine, *_ = case()
    generator = torch.Generator().manual_seed(0)
    truth, one, two = (
        0.1 * torch.randn(600, *fine.shape[1:], generator=generator).double() for _ in range(3)
    )
    start = fine.expand(600, -1, -1)
    for name in ("place", "shape", "pairs"):
        found = {
            s: float(
                trace_scores(
                    torch.cat([fine + s * one, fine + s * two]), fine + truth, start, system
                )[name]
            )
            for s in (0.0, 0.6, 1.0, 1.5)
        }
        assert min(found, key=found.get) == 1.0, (name, found)


def test_the_one_answer_is_scored_by_its_distance():
    _, _, system, fine, *_ = case()
    exact = trace_scores(fine, fine, fine, system)
    assert max(map(float, exact.values())) < 0.01
    far = trace_scores(fine * 1.2, fine, fine, system)
    assert all(float(far[name]) > 0.1 for name in far)


def test_local_shape_tells_left_from_right_and_ends_at_a_break():
    _, _, system, *_ = case(("AAAAAAAAAAAA",))
    right, left = (
        local_shape(torch.from_numpy(helix(12, hand))[None], system)[0] for hand in (1, -1)
    )
    distances = [0, 1, 2, 4, 5, 6]
    torch.testing.assert_close(right[:, distances], left[:, distances])
    assert float(right[:9, 3].min()) > 0.05
    assert float(left[:9, 3].max()) < -0.05
    assert float(right[9:, 3].abs().max()) == 0
    assert float(right[6:, 6].abs().max()) == 0
    assert abs(float(right[0, 4]) - np.linalg.norm(helix(5)[4] - helix(5)[0])) < 1e-6


def test_second_noise_is_another_permutation_inside_each_molecule():
    _, _, system, _, _, noise = case(("A" * 20, "G" * 12))
    other = other_noise(noise, system)
    start = 0
    for size in torch.bincount(system.coarse_system).tolist():
        own = slice(start, start + size)
        torch.testing.assert_close(
            noise[:, own].flatten().sort().values, (-other[:, own]).flatten().sort().values
        )
        assert float((noise[:, own] - other[:, own]).abs().min()) > 0
        start += size


def test_neighbours_of_a_long_chain_are_those_of_all_distances(monkeypatch):
    system = case(("A" * 200, "G" * 340))[2]
    trace = torch.randn(2, 540, 3, generator=torch.Generator().manual_seed(0)).double()
    by_tree = near_residues(trace, system, 12)
    monkeypatch.setattr(geometry, "LARGE", 10_000)
    for found, expected in zip(by_tree, near_residues(trace, system, 12), strict=True):
        assert torch.equal(found, expected)


def test_spline_is_smooth_and_hits_the_beads():
    ladder = build_ladder(topology_from_sequence(["A" * 40]), ["fg", "ca", "ucg:/4"])
    mapping = ladder.mapping("ucgr4")
    index, weight = spline_weights(mapping, np.zeros(40))
    line = np.linspace(0, 1, 40)[:, None] * [1.0, 2.0, 3.0]
    beads = mapping.apply(line)
    np.testing.assert_allclose((weight[..., None] * beads[index]).sum(1), line, atol=2e-4)
    wave = np.sin(np.linspace(0, 3, 40))[:, None] * [1.0, 0.0, 0.0]
    beads = mapping.apply(wave)
    trace = (weight[..., None] * beads[index]).sum(1)
    np.testing.assert_allclose(mapping.apply(trace), beads, atol=1e-3)
    assert np.abs(trace - wave).max() < 0.02


def test_closing_leaves_a_sound_trace_alone_and_takes_cis_links_by_frame():
    _, _, system, *_ = case(("A" * 20,))
    trace = torch.from_numpy(helix(20))[None]
    length = (trace[:, 1:] - trace[:, :-1]).norm(dim=-1)
    assert float((length - 0.38).abs().max()) < 0.005
    trans = torch.zeros(19, dtype=torch.bool)
    torch.testing.assert_close(close_calpha(trace, system, trans), trace, rtol=0, atol=0)
    cis = torch.zeros(2, 19, dtype=torch.bool)
    cis[1, 9] = True
    closed = close_calpha(trace.expand(2, -1, -1), system, cis)
    torch.testing.assert_close(closed[:1], trace, rtol=0, atol=0)
    assert abs(float((closed[1, 10] - closed[1, 9]).norm()) - 0.295) < 0.02


def test_elastic_network_keeps_rigid_bodies_rigid():
    """A rod of two rigid halves hinged in the middle: a bent half is straightened, the beads stay."""
    _, ladders, system, *_ = case(("A" * 24,))
    rod = helix(24)
    frames = []
    for angle in np.linspace(-0.6, 0.6, 9):
        cosine, sine = np.cos(angle), np.sin(angle)
        bend = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        frames.append(np.r_[rod[:12], (rod[12:] - rod[12]) @ bend.T + rod[12]])
    frames = torch.from_numpy(np.array(frames))
    network = ElasticNetwork(24, 1.0, 40).double()
    network.fit(frames, system)
    mapping = ladders[0].mapping("ucgr4")
    noise = 0.05 * torch.randn(24, 3, generator=torch.Generator().manual_seed(0)).double()
    noise = noise - torch.from_numpy(mapping.apply(noise.numpy()))[mapping.bead]
    shaken = frames[4:5] + noise
    relaxed = network(shaken)
    assert np.abs(mapping.apply(relaxed[0].numpy()) - mapping.apply(shaken[0].numpy())).max() < 1e-9
    assert float((relaxed - frames[4]).norm()) < 0.5 * float(noise.norm())

    def energy(x):
        gap = torch.cdist(x, x)[0]
        network_part = (network.stiffness * (gap - network.length).square()).sum()
        return float(network_part + ANCHOR * (x - shaken).square().sum())

    assert energy(relaxed) < 0.5 * energy(shaken)


def test_artifact_of_many_proteins_needs_no_ladder(tmp_path):
    stage, ladders, system, _, coarse, noise = case(dtype=torch.float32)
    again = load_artifact(save_artifact(stage, tmp_path / "a", {"data": "helices"}))
    with torch.no_grad():
        same = again.sample(coarse, collate([again.describe(ladders[0])]), noise)
        assert torch.equal(same, stage.sample(coarse, system, noise))


@pytest.mark.parametrize("blobs", [False, True])
def test_breaks_chains_and_blobs_are_taken(blobs):
    topology = topology_from_sequence(["ACDEFGHIKL", "MNPQRSTVWY"])
    positions = np.random.default_rng(0).normal(size=(3, topology.n_atoms, 3))
    spec = "ucg:5:blobs" if blobs else "ucg:5"
    ladder = build_ladder(topology, ["fg", "ca", spec], positions)
    stage = build_stage("ucg5-ca", TraceConfig(**SMALL), [ladder], 0)
    levels = ladder.coarsen(positions)
    system = collate([stage.describe(ladder)])
    coarse = torch.from_numpy(levels["ucg5"]).float()
    with torch.no_grad():
        assert torch.isfinite(stage.mode(coarse, system)).all()


def test_one_stage_serves_beads_of_every_length(tmp_path):
    """The same artifact, at rungs of its own name or another, keeps beads of 1 to 12 residues exactly."""
    stage, *_ = case(dtype=torch.float32)
    folder = save_artifact(stage, tmp_path / "a", {})
    positions = helix(40)
    for spec in ("ucg:/2", "ucg:1,7,12,3,12,5", "ucg:/13"):
        ladder = build_ladder(topology_from_sequence(["ACDEFGHIKL" * 4]), ["fg", "ca", spec])
        rung = ladder.resolutions[2]
        other = load_artifact(folder).at_rung(f"{rung}-ca")
        assert other.name == f"{rung}-ca"
        beads = torch.from_numpy(ladder.mapping(rung).apply(positions)).float()[None]
        system = collate([other.describe(ladder)])
        noise = torch.zeros(1, len(beads[0]), other.noise_width)
        with torch.no_grad():
            for trace in (other.mode(beads, system), other.sample(beads, system, noise)):
                made = ladder.mapping(rung).apply(trace[0].numpy())
                assert np.abs(made - beads[0].numpy()).max() < 1e-5
    with pytest.raises(InputError, match="makes ca from beads"):
        load_artifact(folder).at_rung("ca-fg")


def test_beads_of_heavy_atoms_leave_the_calpha_centres_free():
    """What a bead is enters the network; only means of C-alpha atoms hold these means."""
    stage, *_ = case(dtype=torch.float32)
    topology, traces = topology_from_sequence(["ACDEFGHIKL" * 2]), {}
    for of in ("ca", "atoms", "mass"):
        ladder = build_ladder(topology, ["fg", "ca", f"ucg:/5:{of}"])
        stage = stage.at_rung(f"{ladder.resolutions[2]}-ca")
        mapping, system = ladder.mappings[1], collate([stage.describe(ladder)])
        beads = torch.from_numpy(mapping.apply(helix(20))).float()[None]
        with torch.no_grad():
            traces[of] = stage.mode(beads, system)[0].numpy()
        moved = np.abs(mapping.apply(traces[of]) - beads[0].numpy()).max()
        assert (moved < 1e-5) == (of == "ca"), (of, moved)
    assert np.abs(traces["atoms"] - traces["mass"]).max() > 1e-4


def test_members_drawn_together_are_those_drawn_alone():
    stage, _, system, _, coarse, _ = case(("ACDEFGHIKLMNPQRSTVWY" * 2,), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    shape = (1, coarse.shape[1], stage.noise_width)
    noises = [torch.randn(*shape, generator=generator) for _ in range(3)]
    with torch.no_grad():
        together = stage.samples(coarse, system, noises)
        assert all(
            torch.equal(member, stage.sample(coarse, system, noise))
            for member, noise in zip(together, noises, strict=True)
        )
    assert float((together[0] - together[1]).abs().max()) > 1e-3
