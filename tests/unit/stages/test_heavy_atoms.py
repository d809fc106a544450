"""The C-alpha to heavy-atom stage: what side chains see, peptide planes, clashes, cis and trans."""

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.metrics.ramachandran import ramachandran_outliers
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.torsions import omega_angles
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.stages.genzprot import drawing
from hpcbackmap.stages.genzprot.clashes import overlaps
from hpcbackmap.stages.genzprot.dense_atoms import backbone_atoms, flat, make_scene
from hpcbackmap.stages.genzprot.ideal_geometry import internal_of, log_density
from hpcbackmap.stages.genzprot.network import BINS
from hpcbackmap.stages.genzprot.place_side_chains import CHI, moving
from hpcbackmap.stages.genzprot.plane_tables import angle_tables, outliers
from hpcbackmap.stages.genzprot.torsions import draw
from hpcbackmap.stages.noise import frame_noise

WIDTH = {"width": 16, "layers": 1}


def read(path, frames=1):
    loaded = mdtraj.load(str(path))[:frames]
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], path.name)
    return topology, torch.from_numpy(loaded.xyz[:, index].astype(np.float64))


def make(topology, fine, **options):
    ladder = build_ladder(topology, ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(**{**WIDTH, **options}), [ladder], 1).double()
    system = collate([stage.describe(ladder)])
    system = system.apply(lambda x: x.double() if x.is_floating_point() else x)
    coarse = fine[:, topology.ca_index]
    shape = (coarse.shape[1], max(stage.noise_width, stage.elbo_noise))
    noise = frame_noise(0, "x", list(range(len(fine))), 0, *shape)
    return stage, system, coarse, torch.from_numpy(noise).double()


@pytest.fixture(scope="module")
def kix(data_dir):
    return read(data_dir / "nmr" / "1sb0_nmr.pdb.gz", 2)


def test_planes_know_the_angle_between_them(kix):
    topology, fine = kix
    _, system, coarse, _ = make(topology, fine)
    internal = internal_of(fine, system)
    tables = angle_tables(coarse, internal, system).at
    turn = internal[:, system.torsion_index[:, Role.PLANE], 2]
    u = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin()], -1)
    cosine = torch.einsum("fri,frij,frj->fr", u[:, system.bead_previous], tables, u)
    n, ca, c = (fine[:, system.atom_index[:, k]] for k in range(3))
    true = torch.cosine_similarity(n - ca, c - ca, dim=-1)
    between = system.bonded & system.leads
    assert float((cosine - true)[:, between].abs().max()) < 1e-6


def test_planes_of_both_sets_are_drawn_given_the_other(kix):
    """The set that comes first was once drawn without the other and stayed."""
    topology, fine = kix
    stage, system, coarse, noise = make(topology, fine)
    with torch.no_grad():
        context = stage._context(coarse, system)
        tables = angle_tables(coarse, stage._rigid(context, coarse, system), system)
        first = (system.place % 2 == 0).expand(coarse.shape[:2])
        once, again, other = noise[..., 6], noise[..., [5]], noise[..., [7]]
        head, h = stage.planes, context.h
        drawn = head.draw(h, once, again, first, tables, system)
        for given, column in (
            (drawn, again),
            (head.draw(h, once, other, first, tables, system), other),
        ):
            expected = draw(head.given_others(h, given, tables, system), column[..., 0])
            assert torch.allclose(given[~first & system.leads], expected[~first & system.leads])
        alone = draw(head.alone(h), once)
    redrawn = (drawn - alone)[first & system.leads]
    assert float((redrawn.abs() > 1e-3).double().mean()) > 0.9


def test_planes_know_which_residues_are_ramachandran_outliers(kix):
    """As what judges them has it, of rotations all around."""
    topology, fine = kix
    _, system, coarse, noise = make(topology, fine)
    internal = internal_of(fine, system)
    internal[:, system.torsion_index[:, Role.PLANE], 2] = 3 * noise[..., 6]
    torsions = internal[:, system.torsion_index, 2]
    atoms = backbone_atoms(internal, torsions, coarse, system)
    judged = ramachandran_outliers(topology, flat(atoms, system).numpy())
    between = (system.bonded & system.leads).numpy()
    tables = angle_tables(coarse, internal, system)
    found = outliers(torsions[..., Role.PLANE], tables, system).numpy()
    assert not found[:, ~between].any()
    assert 0.2 < judged.mean() < 0.8
    np.testing.assert_array_equal(found[:, between], judged)


def test_planes_at_outliers_draw_again_and_others_stay(kix):
    topology, fine = kix
    stage, system, coarse, noise = make(topology, fine)
    with torch.no_grad():
        h = stage._context(coarse, system).h
        tables = angle_tables(coarse, internal_of(fine, system), system)
        first = (system.place % 2 == 0).expand(coarse.shape[:2])
        once, again = noise[..., 6], noise[..., 7:10]
        before, after = (
            stage.planes.draw(h, once, some, first, tables, system)
            for some in (again[..., :1], again)
        )
    bad = outliers(before, tables, system)
    at_bad = (bad | bad[:, system.bead_next]) & system.leads
    changed = before != after
    assert changed[at_bad].all()
    assert float(changed[~at_bad].double().mean()) < 0.5 * float(at_bad.double().mean())
    assert int(outliers(after, tables, system).sum()) < int(bad.sum())


def test_planes_know_where_their_oxygen_and_nitrogen_are(kix):
    topology, fine = kix
    _, system, coarse, _ = make(topology, fine)
    internal = internal_of(fine, system)
    tables = angle_tables(coarse, internal, system)
    turn = internal[:, system.torsion_index[:, Role.PLANE], 2]
    u = torch.stack([torch.ones_like(turn), turn.cos(), turn.sin()], -1)
    oxygen, nitrogen = (
        torch.einsum("frk,frkx->frx", u, x) for x in (tables.oxygen, tables.nitrogen)
    )
    n, _, _, o = (fine[:, system.atom_index[:, k]] for k in range(4))
    gap = (nitrogen - n[:, system.bead_next])[:, system.leads]
    assert float(gap.abs().max()) < 1e-9
    out_of_plane = (oxygen - o)[:, system.leads].norm(dim=-1)
    assert float(out_of_plane.max()) < 0.03, "O is taken to be in the plane of CA, C and N"
    assert float(out_of_plane.median()) < 0.01


def test_latents_are_the_bins_of_the_truth(kix):
    topology, fine = kix
    stage, system, coarse, _ = make(topology, fine)
    bins = stage.encode(fine, system)
    again = stage.encode(stage.decode(bins, coarse, system), system)
    assert torch.equal(bins, again)
    truth, there = internal_of(fine, system)[:, system.torsion_index, 2], system.torsion_mask
    width = 2 * np.pi / torch.tensor(BINS)
    angle = (bins + 0.5) * width - np.pi
    apart = torch.atan2((angle - truth).sin(), (angle - truth).cos()).abs()
    assert bool((apart <= width / 2 + 1e-6)[:, there].all())


def test_information_is_minus_the_log_probability_of_the_bins(kix):
    topology, fine = kix
    stage, system, coarse, noise = make(topology, fine)
    noise[..., 0], noise[..., 1] = 0.0, torch.linspace(-2, 2, coarse.shape[1]).double()
    with torch.no_grad():
        information = stage.information(fine, coarse, system)
        kl = stage.elbo(fine, coarse, system, noise).kl
    torch.testing.assert_close(information.sum((1, 2)), kl[:, 0])
    assert float(information.min()) >= 0
    assert bool((information[:, system.torsion_mask] > 0).all())


def test_a_side_chain_sees_what_is_placed_before_it_and_nothing_else(kix):
    topology, fine = kix
    stage, system, coarse, _ = make(topology, fine)
    last = int(torch.nonzero(system.torsion_mask[:, Role.CHI1])[-1])
    first = int(torch.nonzero(system.torsion_mask[:, Role.CHI1])[0])
    with torch.no_grad():
        plain = stage.information(fine, coarse, system)[..., CHI]
        changed = {}
        for residue in (first, last):
            moved = fine.clone()
            side = system.atom_index[residue, 5:-1][system.atom_mask[residue, 5:-1]]
            moved[:, side] += 0.15
            changed[residue] = stage.information(moved, coarse, system)[..., CHI]
    others = torch.arange(len(system.place)) != last
    torch.testing.assert_close(changed[last][:, others], plain[:, others])
    near = (coarse[0] - coarse[0, first]).norm(dim=-1).argsort()[1:6]
    assert float((changed[first] - plain)[0, near].abs().max()) > 1e-6


def test_redraws_and_alternatives_take_contacts_away(kix, monkeypatch):
    monkeypatch.setattr(drawing, "push", lambda *_: None)
    topology, fine = kix
    depths = {}
    for redraws in (0, 6):
        stage, system, coarse, noise = make(topology, fine, redraws=redraws)
        with torch.no_grad():
            context = stage._context(coarse, system)
            sample = stage.sample(coarse, system, noise)
        scene = make_scene(sample[:, system.atom_index], context.near, context.valid, system)
        rows = torch.nonzero(moving(system).expand(len(coarse), -1), as_tuple=True)
        depth = overlaps(sample[:, system.atom_index][rows], scene, *rows)
        depths[redraws] = float((depth > 0).double().mean())
    assert depths[0] > 0.3, "an untrained stage draws any rotamer"
    assert depths[6] < 0.6 * depths[0]


def test_overlap_of_a_planted_clash(kix):
    topology, fine = kix
    stage, system, coarse, _ = make(topology, fine)
    with torch.no_grad():
        context = stage._context(coarse, system)
    leucines = [i for i, name in enumerate(topology.sequence) if name == "LEU"]
    residue = torch.tensor([leucines[0]])
    frame = torch.zeros_like(residue)
    atoms = fine[:, system.atom_index]
    scene = make_scene(atoms.clone(), context.near, context.valid, system)
    free = float(overlaps(atoms[frame, residue], scene, frame, residue))
    other = int(context.near[0, residue[0], 3])
    moved = atoms[frame, residue].clone()
    moved[0, 6] = atoms[0, other, 1] + torch.tensor([0.1, 0.0, 0.0])
    planted = float(overlaps(moved, scene, frame, residue))
    assert free < 0.02
    assert planted > 0.17, "two carbons at 0.1 nm overlap by 0.28 - 0.1"


@pytest.mark.trains
def test_steric_term_lowers_clashes(kix):
    topology, fine = kix
    stage, system, coarse, _ = make(topology, fine[:1], steric_weight=1.0, redraws=0)
    optimiser = torch.optim.Adam(stage.packing.parameters(), 1e-2)
    history = []
    for step in range(40):
        noise = frame_noise(0, str(step), [0], 0, coarse.shape[1], stage.elbo_noise)
        context = stage._context(coarse, system)
        context = context._replace(h=context.h.detach())
        gradient, clashes = stage._steric(context, coarse, system, torch.from_numpy(noise).double())
        optimiser.zero_grad()
        gradient.backward()
        optimiser.step()
        history.append(float(clashes))
    assert np.mean(history[-10:]) < 0.75 * np.mean(history[:3])


def test_cis_links_follow_the_calpha_distance(data_dir):
    """Adenylate kinase has one cis proline, at 0.29 nm."""
    folder = data_dir / "adenylate_kinase"
    loaded = mdtraj.load(str(folder / "adk_dims_a.xtc"), top=str(folder / "adk_dims_a_top.pdb"))[:2]
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "adk")
    fine = torch.from_numpy(loaded.xyz[:, index].astype(np.float64))
    stage, system, coarse, noise = make(topology, fine)
    with torch.no_grad():
        for made in (stage.mode(coarse, system), stage.sample(coarse, system, noise)):
            cis = np.abs(omega_angles(topology, made.numpy())) < np.pi / 2
            true = np.abs(omega_angles(topology, fine.numpy())) < np.pi / 2
            assert true.sum() == 2
            assert (cis == true).all()


def test_rigid_density_is_normalised(kix):
    """Integrated over the distance of one atom; its Jacobian d^2 taken out."""
    topology, fine = kix
    stage, system, coarse, _ = make(topology, fine[:1])
    with torch.no_grad():
        expected = stage._rigid(stage._context(coarse, system), coarse, system)
        atom = int(torch.nonzero(system.role == Role.LINK_O)[0])
        grid = torch.linspace(0.02, 0.4, 2001).double()
        internal = expected.repeat(len(grid), 1, 1)
        internal[:, atom, 0] = grid
        nats = log_density(
            expected.repeat(len(grid), 1, 1), stage.log_spread, internal,
            fine[:1].repeat(len(grid), 1, 1), system,
        )[:, atom]  # fmt: skip
        jacobian = 2 * grid.log() + internal[0, atom, 1].sin().log()
        rest = nats.max() + jacobian[nats.argmax()]
        profile = (nats + jacobian - rest).exp()
        peak = (
            torch.exp(torch.tensor(-0.980829))
            / stage.log_spread.exp()[
                system.residue_type[system.bead_of[atom]] * 15 + system.slot[atom], 0
            ]
        )
        area = float(torch.trapezoid(profile, grid) * peak)
    assert abs(area - 1) < 1e-3, "t distribution of 4 degrees of freedom has the peak 3/8 / scale"


@pytest.mark.trains
def test_first_steps_of_training_keep_the_peptide_bond(kix):
    """Two bounded angles carry it; an optimiser that took them to their ends would shorten it."""
    topology, fine = kix
    stage, system, coarse, noise = make(topology, fine)
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        stage.loss(fine, coarse, system, noise)["loss"].backward()
        optimiser.step()
    with torch.no_grad():
        made = stage.mode(coarse, system)
    c, n = system.atom_index[:, 2], system.atom_index[:, 0]
    before = torch.nonzero(system.bonded).squeeze(-1)
    length = (made[:, c[before - 1]] - made[:, n[before]]).norm(dim=-1)
    assert float((length - 0.133).abs().max()) < 0.012
    assert float((length - 0.133).mean().abs()) < 0.004


def test_gradients_are_numbers_where_chains_end(kix):
    topology, fine = kix
    stage, system, coarse, noise = make(topology, fine)
    stage.loss(fine, coarse, system, noise)["loss"].backward()
    for name, parameter in stage.named_parameters():
        assert parameter.grad is None or bool(torch.isfinite(parameter.grad).all()), name
