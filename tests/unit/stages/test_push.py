"""Generated side chains keep clear of one another, and a push moves nothing else."""

import csv

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.metrics.clashes import SEVERE_OVERLAP, clashing_pairs
from hpcbackmap.metrics.close_pairs import close_atoms, pairs_within_two_bonds
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residues import RESIDUES
from hpcbackmap.protein.side_chain import CB, N_CHI, SIDE, chi_of
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot import contacts, drawing
from hpcbackmap.stages.genzprot import push as push_module
from hpcbackmap.stages.genzprot.dense_atoms import (
    add_side_chains,
    flat,
    make_scene,
    side_chain_rows,
)
from hpcbackmap.stages.genzprot.ideal_geometry import internal_of
from hpcbackmap.stages.genzprot.place_side_chains import moving
from hpcbackmap.stages.genzprot.turning import reach_of_slots, turned
from hpcbackmap.stages.layers.geometry import pairs_within
from hpcbackmap.stages.noise import frame_noise

CHAINS = 6


def read(path):
    loaded = mdtraj.load(str(path))
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], path.name)
    return topology, torch.from_numpy(loaded.xyz[:, index].astype(np.float64))


@pytest.fixture(scope="module")
def stage():
    return load_artifact(shipped_artifact())


@pytest.fixture(scope="module")
def chains(data_dir):
    """Topology and positions of chains of families that no weights were trained on, short ones first."""
    folder = data_dir / "static_more"
    with (folder / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    rows.sort(key=lambda row: (int(row["residues"]), row["file"]))
    return [read(folder / row["file"]) for row in rows[:: len(rows) // CHAINS][:CHAINS]]


def prepare(stage, topology, fine):
    ladder = build_ladder(topology, ["fg", "ca"])
    system = collate([stage.describe(ladder)])
    coarse = (fine[:, topology.ca_index] - fine.mean(1, keepdim=True)).float()
    noise = frame_noise(0, stage.name, [0], 0, topology.n_residues, stage.noise_width)
    return system, coarse, torch.from_numpy(noise)


def severe(topology, positions) -> int:
    close = close_atoms(positions, SEVERE_OVERLAP)
    return len(clashing_pairs(topology, close, pairs_within_two_bonds(topology), SEVERE_OVERLAP))


@pytest.mark.trains
def test_members_and_mode_have_no_severe_clash(stage, chains):
    found = 0
    for topology, fine in chains:
        system, coarse, noise = prepare(stage, topology, fine)
        for atoms in (stage.sample(coarse, system, noise), stage.mode(coarse, system)):
            found += severe(topology, atoms[0].numpy())
    assert found == 0


def test_a_push_turns_side_chains_and_nothing_else(stage, chains, monkeypatch):
    topology, fine = chains[-1]
    system, coarse, noise = prepare(stage, topology, fine)
    monkeypatch.setattr(drawing, "ease", lambda *_: None)
    pushed = stage.sample(coarse, system, noise)
    monkeypatch.setattr(drawing, "push", lambda *_: None)
    drawn = stage.sample(coarse, system, noise)
    moved = (pushed != drawn).any(-1)[0]
    assert moved.any()
    assert not moved[system.backbone].any()
    before, after = internal_of(drawn, system), internal_of(pushed, system)
    turning = torch.isin(system.role, torch.arange(Role.CHI1, Role.CHI1 + N_CHI))
    torch.testing.assert_close(after[..., :2], before[..., :2], atol=1e-4, rtol=0)
    turn = (after - before)[0, ~turning, 2]
    assert float(torch.atan2(turn.sin(), turn.cos()).abs().max()) < 1e-2


@pytest.mark.trains
def test_a_side_chain_that_is_locked_in_another_comes_free(stage, chains, monkeypatch):
    """It is put onto others by its own torsions, where no near turn helps."""
    topology, fine = chains[-1]
    system, coarse, _ = prepare(stage, topology, fine)
    fine = fine.float() - fine.float().mean(1, keepdim=True)
    rigid = internal_of(fine, system)
    context = stage._context(coarse, system)
    scene = make_scene(fine[:, system.atom_index], context.near, context.valid, system, rigid)
    before = scene.atoms.clone()
    locked = 0
    for residue in torch.nonzero(system.residue_type == list(RESIDUES).index("PHE"))[:, 0].tolist():
        row = (torch.tensor([0]), torch.tensor([residue]))
        worst = (0, before)
        for chi in torch.linspace(-3, 3, 24):
            scene.atoms.copy_(before)
            torsions = torch.tensor([[float(chi), 1.5, 0.0, 0.0]])
            add_side_chains(scene, side_chain_rows(scene, torsions, *row), *row)
            count = severe(topology, flat(scene.atoms, system)[0].numpy())
            worst = max(worst, (count, scene.atoms.clone()), key=lambda it: it[0])
        if worst[0] == 0:
            continue
        locked += 1
        scene.atoms.copy_(worst[1])
        monkeypatch.setattr(push_module, "SWEEPS", 0)
        push_module.push(scene, system, moving(system))
        assert severe(topology, flat(scene.atoms, system)[0].numpy()) == 0
    assert locked


@pytest.mark.trains
def test_a_side_chain_leaves_the_nitrogen_of_its_own_residue(stage, chains):
    topology, fine = chains[-1]
    system, coarse, _ = prepare(stage, topology, fine)
    fine = fine.float() - fine.float().mean(1, keepdim=True)
    rigid, context = internal_of(fine, system), stage._context(coarse, system)
    scene = make_scene(fine[:, system.atom_index], context.near, context.valid, system, rigid)
    residue = next(
        i for i, name in enumerate(topology.sequence) if name == "GLU" and topology.bonded[i]
    )
    row = (torch.tensor([0]), torch.tensor([residue]))
    oxygens = [RESIDUES["GLU"].atoms.index(name) for name in ("OE1", "OE2")]

    def gap() -> float:
        atoms = scene.atoms[0, residue]
        return float((atoms[oxygens] - atoms[0]).norm(dim=-1).min())

    degrees = torch.cartesian_prod(*[torch.arange(-180.0, 180.0, 30.0)] * 3).deg2rad()
    gaps = []
    for chi in degrees:
        torsions = torch.nn.functional.pad(chi, (0, 1)).unsqueeze(0)
        add_side_chains(scene, side_chain_rows(scene, torsions, *row), *row)
        gaps.append(gap())
    chi = degrees[int(np.argmin(gaps))]
    torsions = torch.nn.functional.pad(chi, (0, 1)).unsqueeze(0)
    add_side_chains(scene, side_chain_rows(scene, torsions, *row), *row)
    assert gap() < 0.2
    alone = torch.arange(topology.n_residues) == residue
    push_module.push(scene, system, alone)
    assert gap() > 0.24


def test_a_molecule_is_pushed_alike_alone_and_beside_others(stage, chains):
    (first, fine), (second, other) = chains[0], chains[1]
    system, coarse, noise = prepare(stage, first, fine)
    ladders = [build_ladder(topology, ["fg", "ca"]) for topology in (first, second)]
    both = collate([stage.describe(ladder) for ladder in ladders])
    _, more, other_noise = prepare(stage, second, other)
    together = stage.sample(torch.cat([coarse, more], 1), both, torch.cat([noise, other_noise], 1))
    alone = stage.sample(coarse, system, noise)
    torch.testing.assert_close(together[:, : first.n_atoms], alone, atol=1e-4, rtol=0)


def test_torsions_read_back_are_those_of_the_atoms(stage, chains):
    topology, fine = chains[0]
    system, _, _ = prepare(stage, topology, fine)
    near = torch.zeros(1, topology.n_residues, 1, dtype=torch.int64)
    atoms = make_scene(fine[:, system.atom_index], near, near > 0, system).atoms
    found = chi_of(atoms[0], system.residue_type)
    torsions = internal_of(fine, system)[0, system.torsion_index, 2]
    expected = torsions[:, Role.CHI1 : Role.CHI1 + N_CHI]
    there = system.torsion_mask[:, Role.CHI1 : Role.CHI1 + N_CHI]
    torch.testing.assert_close(found[there], expected[there], atol=1e-6, rtol=0)
    assert not found[~there].any()


def test_pairs_of_a_tree_are_those_of_all_distances():
    points = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (200, 3)))
    group = (torch.arange(200) >= 120).long()
    gap = torch.cdist(points, points)
    expected = torch.nonzero(((gap < 0.2) & (group == group[:, None])).triu(1))
    found = torch.stack(pairs_within(points, group, 0.2), 1).sort(1).values
    assert {tuple(pair) for pair in found.tolist()} == {tuple(pair) for pair in expected.tolist()}


def test_turned_side_chains_are_those_that_are_built(stage, chains):
    """Turned about their bonds, many ways at a time, and placed one after another from the same torsions."""
    topology, fine = chains[-1]
    system, _, _ = prepare(stage, topology, fine)
    near = torch.zeros(1, topology.n_residues, 1, dtype=torch.int64)
    scene = make_scene(
        fine[:, system.atom_index], near, near > 0, system, internal_of(fine, system)
    )
    (residue,) = torch.nonzero(moving(system), as_tuple=True)
    frame, ways = torch.zeros_like(residue), torch.randn(3, N_CHI, dtype=fine.dtype)
    atoms = scene.atoms[0, residue]
    own, slot = torch.nonzero(scene.there[residue, SIDE], as_tuple=True)
    slot = slot + SIDE.start
    centre = atoms[:, CB]
    local = atoms - centre.unsqueeze(1)
    found = turned(local, scene.kind[residue], own, slot, ways)
    reach = reach_of_slots(local, scene.kind[residue])[own, slot]
    for way, angles in enumerate(ways):
        chi = chi_of(atoms, scene.kind[residue]) + angles
        built = (side_chain_rows(scene, chi, frame, residue) - centre.unsqueeze(1))[own, slot]
        torch.testing.assert_close(found[:, :, way].T, built, atol=1e-6, rtol=0)
        assert (built.norm(dim=-1) < reach + 1e-6).all()


def test_pairs_of_residues_miss_no_contact(stage, chains, monkeypatch):
    """By a tree and by all distances alike, and no two atoms that touch are left out."""
    topology, fine = chains[-1]
    system, _, _ = prepare(stage, topology, fine)
    near = torch.zeros(1, topology.n_residues, 1, dtype=torch.int64)
    scene = make_scene(fine[:, system.atom_index], near, near > 0, system)
    may_move = moving(system).unsqueeze(0)
    dense = torch.stack(contacts.residue_pairs(scene, system, may_move, 0.36))
    monkeypatch.setattr(contacts, "LARGE", 10)
    assert torch.equal(torch.stack(contacts.residue_pairs(scene, system, may_move, 0.36)), dense)
    first, second = pairs_within(fine[0], system.fine_system, 0.36)
    found = {tuple(pair) for pair in dense[1:].T.tolist()}
    for own, other in ((first, second), (second, first)):
        pair = torch.stack([system.bead_of[own], system.bead_of[other]], 1)
        assert {tuple(p) for p in pair[may_move[0, pair[:, 0]]].tolist()} <= found
