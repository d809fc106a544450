"""The stages: exact mathematics, symmetry, geometry, artifacts."""

import json
from functools import partial

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.config.campaign import CgvaeConfig, GenzprotConfig
from hpcbackmap.protein.internal import internal_from_positions
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import Normal, collate, kl_divergence
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.cgvae.linear import principal_components
from hpcbackmap.stages.genzprot.torsions import angle_of_mode, bin_of, draw, log_density
from hpcbackmap.stages.layers.close_trace import close_calpha, recentre
from hpcbackmap.stages.noise import frame_noise

SMALL = {"width": 16, "layers": 1}


@pytest.fixture(scope="module")
def ensemble(data_dir):
    """(topology, positions float64 [F, A, 3]) of two chains with prolines: KIX and c-Myb."""
    frames = mdtraj.load(str(data_dir / "nmr" / "1sb0_nmr.pdb.gz"))[:4]
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "1sb0")
    positions = frames.xyz[:, index].astype(np.float64)
    return topology, positions - positions.mean(1, keepdims=True)


def as_dtype(system, dtype):
    return system.apply(lambda x: x.to(dtype) if x.is_floating_point() else x)


def make(rung, ensemble, specs, dtype=torch.float64, **options):
    """An untrained stage with random weights everywhere, its system, fine and coarse positions, noise."""
    topology, positions = ensemble
    ladder = build_ladder(topology, specs, positions)
    kind = GenzprotConfig if rung == "ca-fg" else partial(CgvaeConfig, latent=3)
    stage = build_stage(rung, kind(**{**SMALL, **options}), [ladder], seed=1).to(dtype)
    system = as_dtype(collate([stage.describe(ladder)]), dtype)
    levels = ladder.coarsen(positions)
    fine, coarse = (torch.from_numpy(levels[name]).to(dtype) for name in (stage.fine, stage.coarse))
    stage.calibrate(fine, coarse, system)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for parameter in stage.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    noise = frame_noise(0, rung, list(range(len(fine))), 0, coarse.shape[1], stage.noise_width)
    return stage, ladder, system, fine, coarse, torch.from_numpy(noise).to(dtype)


RUNGS = {
    "ca-fg": ["fg", "ca"],
    "ucg10-ca": ["fg", "ca", "ucg:10"],
    "ucg10-fg": ["fg", "ucg:10"],
    "ucg5-ucg20": ["fg", "ca", "ucg:20", "ucg:5"],
}


def rotation():
    matrix, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    )
    return matrix * torch.linalg.det(matrix)


@pytest.mark.parametrize("rung", RUNGS)
def test_rotation_translation_and_mapping(ensemble, rung):
    stage, ladder, system, fine, coarse, noise = make(rung, ensemble, RUNGS[rung])
    turn, shift = rotation(), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    with torch.no_grad():
        for call in (lambda x: stage.sample(x, system, noise), lambda x: stage.mode(x, system)):
            there, turned = call(coarse), call(coarse @ turn.T + shift)
            assert float((turned - (there @ turn.T + shift)).abs().max()) < 1e-8
            back = ladder.mapping(stage.coarse).apply(there.numpy())
            assert np.abs(back - coarse.numpy()).max() < 1e-7, "nm; mapping(sample) is the input"
        elbo, moved = (
            stage.elbo(x, y, system, noise)
            for x, y in ((fine, coarse), (fine @ turn.T + shift, coarse @ turn.T + shift))
        )
    torch.testing.assert_close(elbo.total, moved.total)


def chirality(topology, positions):
    """Sign of (N-CA) x (C-CA) . (CB-CA) per residue; L is positive in PDB structures."""
    index = topology.atom_index
    rows = [
        [index[i, name] for name in ("N", "CA", "C", "CB")]
        for i, residue in enumerate(topology.sequence)
        if residue != "GLY"
    ]
    n, ca, c, cb = (positions[:, [row[k] for row in rows]] for k in range(4))
    return torch.sign((torch.linalg.cross(n - ca, c - ca) * (cb - ca)).sum(-1))


def test_mirrored_trace_still_gives_l_residues(ensemble):
    topology, _ = ensemble
    stage, _, system, fine, coarse, noise = make("ca-fg", ensemble, ["fg", "ca"])
    assert (chirality(topology, fine) == 1).all()
    mirror = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        plain, mirrored = (stage.sample(x, system, noise) for x in (coarse, coarse * mirror))
    for sample in (plain, mirrored):
        assert (chirality(topology, sample) == 1).all()
    assert float((mirrored * mirror - plain).abs().max()) > 0.05, "not mirror symmetric"


def test_untrained_chemistry_is_sound(ensemble):
    """Bonds, peptide links and rings come from the construction, whatever the weights."""
    topology, _ = ensemble
    stage, _, system, _, coarse, noise = make("ca-fg", ensemble, ["fg", "ca"])
    with torch.no_grad():
        sample = stage.sample(coarse, system, noise).numpy()
    first, second = topology.bonds.T
    lengths = np.linalg.norm(sample[:, first] - sample[:, second], axis=-1)
    assert lengths.min() > 0.095
    assert lengths.max() < 0.20
    index = topology.atom_index
    links = [
        (index[i - 1, "C"], index[i, "N"]) for i in range(topology.n_residues) if topology.bonded[i]
    ]
    peptide = np.linalg.norm(np.subtract(*(sample[:, k] for k in np.array(links).T)), axis=-1)
    assert np.abs(peptide - 0.133).max() < 0.02
    rings = [
        (index[i, "CG"], index[i, "CD"]) for i, n in enumerate(topology.sequence) if n == "PRO"
    ]
    closed = np.linalg.norm(np.subtract(*(sample[:, k] for k in np.array(rings).T)), axis=-1)
    assert np.abs(closed - 0.150).max() < 0.04


def test_closing_projection_repairs_the_trace(ensemble):
    _, ladder, system, fine, coarse, _ = make("ucg20-ca", ensemble, ["fg", "ca", "ucg:20"])
    first, second = system.bond_index.T
    generator = torch.Generator().manual_seed(0)
    shaken = fine + recentre(0.1 * torch.randn(fine.shape, generator=generator).double(), system)
    closed = close_calpha(shaken, system, torch.zeros(len(first), dtype=torch.bool))

    def bad(x):
        return float(
            ((x[:, second] - x[:, first]).norm(dim=-1) - 0.38).abs().gt(0.02).double().mean()
        )

    def nearest(x):
        gap = torch.cdist(x, x) + 9 * torch.eye(x.shape[1])
        gap[:, first, second] = gap[:, second, first] = 9
        return float(gap.amin())

    assert bad(shaken) > 0.4
    assert bad(closed) < 0.02
    assert nearest(shaken) < 0.3
    assert nearest(closed) > 0.35
    assert float((closed - fine).norm(dim=-1).mean()) < float((shaken - fine).norm(dim=-1).mean())
    beads = ladder.mapping("ucg20").apply(closed.numpy())
    assert np.abs(beads - coarse.numpy()).max() < 1e-7


def test_closing_a_frame_does_not_see_its_neighbours(ensemble):
    _, _, system, fine, *_ = make("ucg20-ca", ensemble, ["fg", "ca", "ucg:20"])
    cis = torch.zeros(len(system.bond_index), dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    shaken = fine + recentre(0.2 * torch.randn(fine.shape, generator=generator).double(), system)
    together = close_calpha(shaken, system, cis)
    alone = torch.cat([close_calpha(frame[None], system, cis) for frame in shaken])
    assert float((together - alone).abs().max()) < 1e-9


def test_loss_of_two_proteins_is_the_mean_of_both(ensemble):
    """So that the ranks may share a batch in any way."""
    stage, ladder, system, fine, coarse, noise = make("ca-fg", ensemble, ["fg", "ca"])
    other = build_ladder(topology_from_sequence(["GAPW"]), ["fg", "ca"])
    trace = torch.tensor([[0, 0, 0], [0.38, 0, 0], [0.5, 0.36, 0], [0.3, 0.5, 0.27]]).double()[None]
    small = as_dtype(collate([stage.describe(other)]), torch.float64)
    extra = torch.from_numpy(frame_noise(0, "x", [0], 0, 4, stage.noise_width)).double()
    with torch.no_grad():
        atoms = stage.mode(trace, small)
        both = as_dtype(collate([stage.describe(ladder), stage.describe(other)]), torch.float64)
        parts = [(fine[:1], coarse[:1], system, noise[:1]), (atoms, trace, small, extra)]
        joined = [torch.cat([a[i] for a in parts], 1) for i in (0, 1)]
        loss = stage.loss(*joined, both, torch.cat([noise[:1], extra], 1))["loss"]
        mean = sum(stage.loss(*part)["loss"] for part in parts) / 2
    torch.testing.assert_close(loss, mean)


def test_batch_of_proteins_equals_one_by_one(ensemble):
    other = build_ladder(topology_from_sequence(["GAPW"]), ["fg", "ca"])
    stage, ladder, system, fine, coarse, noise = make("ca-fg", ensemble, ["fg", "ca"])
    trace = torch.tensor([[0, 0, 0], [0.38, 0, 0], [0.5, 0.36, 0], [0.3, 0.5, 0.27]]).double()[None]
    extra = torch.from_numpy(frame_noise(0, "x", [0], 0, 4, stage.noise_width)).double()
    both = collate([stage.describe(ladder), stage.describe(other), stage.describe(ladder)])
    with torch.no_grad():
        alone = stage.sample(coarse[:1], system, noise[:1])
        small = stage.sample(trace, collate([stage.describe(other)]), extra)
        mixed = stage.sample(
            torch.cat([coarse[:1], trace, coarse[:1]], 1),
            both,
            torch.cat([noise[:1], extra, noise[:1]], 1),
        )
        elbo = stage.elbo(
            torch.cat([fine[:1], small, fine[:1]], 1), torch.cat([coarse[:1], trace, coarse[:1]], 1), both,
            torch.cat([noise[:1], extra, noise[:1]], 1),
        )  # fmt: skip
        single = stage.elbo(fine[:1], coarse[:1], system, noise[:1])
    torch.testing.assert_close(mixed, torch.cat([alone, small, alone], 1))
    torch.testing.assert_close(elbo.total[:, [0, 2]], single.total.expand(1, 2))


def test_jacobian_of_internal_coordinates():
    """d^2 sin(theta) per atom is the volume element: compared with autograd on a tripeptide."""
    topology = topology_from_sequence(["GAP"])
    ladder = build_ladder(topology, ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(**SMALL), [ladder], 0).double()
    system = collate([stage.describe(ladder)])
    trace = torch.tensor([[[0, 0, 0], [0.38, 0, 0], [0.5, 0.36, 0.05]]]).double()
    with torch.no_grad():
        positions = stage.mode(trace, system)[0]
    free = [a for a in range(topology.n_atoms) if topology.atom_names[a] != "CA"]
    anchors = (system.z_parent_index, system.z_grand_index, system.z_great_index)

    def internal(x):
        return internal_from_positions(positions.index_put((torch.tensor(free),), x), *anchors)[
            free
        ]

    matrix = torch.autograd.functional.jacobian(internal, positions[free]).reshape(
        3 * len(free), -1
    )
    rows = internal(positions[free])
    expected = -(2 * rows[:, 0].log() + rows[:, 1].sin().log()).sum()
    torch.testing.assert_close(torch.linalg.slogdet(matrix)[1], expected)


def test_torsion_density_is_normalised_and_sampled_exactly():
    bins = 36
    logits = torch.randn(bins, generator=torch.Generator().manual_seed(0)) * 2
    grid = (torch.arange(3600) + 0.5) / 3600 * 2 * np.pi - np.pi
    density = log_density(logits.expand(3600, bins), grid).exp()
    assert abs(float(density.mean()) * 2 * np.pi - 1) < 1e-5
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(1))
    angles = draw(logits.expand(200_000, bins), noise)
    share = torch.bincount(bin_of(angles, bins), minlength=bins) / 200_000
    assert float((share - logits.softmax(-1)).abs().max()) < 4e-3
    inside = (angles + np.pi) / (2 * np.pi / bins) % 1
    assert abs(float(inside.mean()) - 0.5) < 5e-3, "uniform inside a bin"
    peak = torch.full((bins,), -20.0)
    peak[[bins - 1, 0]] = 0.0
    assert abs(abs(float(angle_of_mode(peak))) - np.pi) < np.radians(10.1), "wraps at 180 degrees"


def test_kl_is_exact():
    generator = torch.Generator().manual_seed(0)
    q, p = (Normal(*torch.randn(2, 3, 5, 4, generator=generator).double()) for _ in "qp")
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(q.mean, q.log_std.exp()),
        torch.distributions.Normal(p.mean, p.log_std.exp()),
    ).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)


@pytest.mark.trains
@pytest.mark.parametrize("rung", ["ca-fg", "ucg10-ca"])
def test_stage_learns(ensemble, rung):
    stage, _, system, fine, coarse, noise = make(rung, ensemble, RUNGS[rung], torch.float32)
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    history = []
    for _ in range(25):
        terms = stage.loss(fine, coarse, system, noise)
        optimiser.zero_grad()
        terms["loss"].backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in stage.parameters())
        optimiser.step()
        history.append(float(terms["loss"]))
    assert history[-1] < history[0] - 0.3
    assert float(terms["kl"]) >= 0


@pytest.mark.parametrize("rung", ["ca-fg", "ucg10-ca"])
def test_artifact_round_trip(ensemble, rung, tmp_path):
    stage, ladder, system, _, coarse, noise = make(rung, ensemble, RUNGS[rung], torch.float32)
    folder = save_artifact(stage, tmp_path / "a", {"data": "made up", "metrics": {"loss": 1.0}})
    again = load_artifact(folder)
    with torch.no_grad():
        same = again.sample(coarse, collate([again.describe(ladder)]), noise)
        assert torch.equal(same, stage.sample(coarse, system, noise))
    assert "made up" in (folder / "MODEL_CARD.md").read_text()
    if rung != "ca-fg":
        with pytest.raises(InputError, match="another sequence or mapping"):
            again.describe(build_ladder(ladder.topology, ["fg", "ca", "ucg:9", "ucg:8"]).__class__(
                ladder.topology, ladder.resolutions,
                (ladder.mappings[0], build_ladder(ladder.topology, ["fg", "ca", "ucg:9"]).mappings[1]),
            ))  # fmt: skip


def test_damaged_and_newer_artifacts_are_refused(ensemble, tmp_path):
    stage, *_ = make("ca-fg", ensemble, ["fg", "ca"], torch.float32)
    folder = save_artifact(stage, tmp_path / "a", {})
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(InputError, match="damaged, its SHA-256"):
        load_artifact(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(InputError, match="format 99"):
        load_artifact(folder)
    with pytest.raises(InputError, match="no artifact here"):
        load_artifact(tmp_path / "nothing")


def test_what_a_stage_cannot_treat_is_refused(ensemble):
    topology, _ = ensemble
    ladder = build_ladder(topology, ["fg", "com"])
    with pytest.raises(InputError, match="C-alpha"):
        build_stage("com-fg", GenzprotConfig(**SMALL), [ladder], 0)
    several = [
        build_ladder(topology_from_sequence([s]), ["fg", "ca", "ucg:3"]) for s in ("AAAA", "GGGG")
    ]
    with pytest.raises(
        InputError, match=r"cgvae learns one molecule, there are 2; set model\.kind=trace"
    ):
        build_stage("ucg3-ca", CgvaeConfig(**SMALL), several, 0)


def test_linear_start_is_the_exact_model():
    """Principal components of data made from them: basis, posterior and noise are recovered."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.linalg.qr(torch.randn(12, 2, generator=generator).double())[0] * torch.tensor(
        [0.5, 0.3]
    )
    z = torch.randn(40_000, 2, generator=generator).double()
    values = z @ mixing.T + 0.1 * torch.randn(40_000, 12, generator=generator).double()
    model = principal_components(values, 2, 12)
    torch.testing.assert_close(model.basis @ model.basis.T, mixing @ mixing.T, atol=5e-3, rtol=0)
    assert abs(model.log_spread - np.log(0.1)) < 0.02
    truth = z @ mixing.T
    assert float((values @ model.gain @ model.basis.T - truth).std()) < 0.12


def test_information_makes_nothing_on_the_default_device(ensemble):
    """On a GPU, positions and system are there and a table made without a device is on the host."""
    stage, _, system, fine, coarse, _ = make("ca-fg", ensemble, ["fg", "ca"], torch.float32)
    made: list = []
    here = stage.information(fine, coarse, system)

    class Seen(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.linspace:
                made.append((kwargs or {}).get("device"))
            return function(*args, **(kwargs or {}))

    with Seen():
        again = stage.information(fine, coarse, system)
    assert set(made) == {coarse.device}
    assert torch.equal(here, again)


@pytest.mark.parametrize("chains", [["AAAAAA"], ["A", "C", "D", "E", "F", "G"]])
def test_terms_of_the_loss_do_not_depend_on_the_molecule(chains):
    """Ranks add up each other's terms; one whose molecule has no bonded pair would add other ones."""
    ladder = build_ladder(topology_from_sequence(chains), ["fg", "ca", "ucg:6"])
    stage = build_stage("ucg6-ca", CgvaeConfig(latent=2, **SMALL), [ladder], 0)
    system = collate([stage.describe(ladder)])
    fine = torch.arange(18.0).reshape(1, 6, 3).square() * 0.01
    coarse = torch.from_numpy(ladder.mapping("ucg6").apply(fine.numpy())).float()
    noise = torch.zeros(1, coarse.shape[1], stage.noise_width)
    terms = stage.loss(fine, coarse, system, noise)
    assert {"bonds", "kl", "log_likelihood", "loss", "active_units"} <= set(terms)
    assert torch.isfinite(terms["bonds"])
