"""Hydrogens in dense slots, the pairs that may touch, and side chains eased out of what they overlap."""

import math
from dataclasses import replace

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.finishing.finish import add_hydrogens
from hpcbackmap.finishing.protonation import protonation_states
from hpcbackmap.metrics.clashscore import clashscore
from hpcbackmap.protein.hydrogens import hydrogens_of
from hpcbackmap.protein.internal import angle
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUES
from hpcbackmap.protein.side_chain import N_CHI
from hpcbackmap.protein.zmatrix import N_TORSIONS, Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot import drawing
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, GivenBeads, flat, make_scene
from hpcbackmap.stages.genzprot.ease import ease
from hpcbackmap.stages.genzprot.hydrogen_slots import SLOTS, with_hydrogens
from hpcbackmap.stages.genzprot.ideal_geometry import internal_of
from hpcbackmap.stages.genzprot.images import Box
from hpcbackmap.stages.genzprot.joints import joints_of, moved, moved_by, planes_ahead, screws
from hpcbackmap.stages.genzprot.touching import touching_pairs
from hpcbackmap.stages.genzprot.turning import ends_of_torsions, levels_of_slots, turned, turns
from hpcbackmap.stages.noise import frame_noise

NONE = torch.zeros(1, dtype=torch.bool)
FREE = {("SER", "HG"), ("THR", "HG1"), ("TYR", "HH"), ("CYS", "HG"), ("HIS", "HD1")}
"""Hydrogens that have no slot; those of LYS that the finish turns are left out, too."""


@pytest.fixture(scope="module")
def stage():
    return load_artifact(shipped_artifact())


@pytest.fixture(scope="module")
def protein(data_dir):
    loaded = mdtraj.load(str(data_dir / "adenylate_kinase/adk_dims_a_top.pdb"))
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "adk")
    fine = loaded.xyz[:1, index]
    return topology, torch.from_numpy(fine - fine.mean(1, keepdims=True))


def scene_of(stage, topology, fine):
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    near = torch.zeros(len(fine), topology.n_residues, 1, dtype=torch.int64)
    return make_scene(fine[:, system.atom_index], near, near > 0, system), system


def member(stage, topology, fine, seed=0):
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    noise = frame_noise(seed, stage.name, [0], 0, topology.n_residues, stage.noise_width)
    return stage.sample(fine[:, topology.ca_index], system, torch.from_numpy(noise))


def test_hydrogens_lie_where_the_finish_puts_them(stage, protein):
    topology, fine = protein
    scene, _ = scene_of(stage, topology, fine)
    slots = with_hydrogens(scene)[0, :, MAX_ATOMS:].numpy()
    topology = replace(topology, protonation=protonation_states(topology, None, 7.0))
    hydrogens = hydrogens_of(topology)
    made = add_hydrogens(topology, fine.numpy())[0]
    parents = fine[0].numpy()[hydrogens.parent]
    off = []
    for number, residue in enumerate(hydrogens.residue.tolist()):
        name, own = hydrogens.names[number], topology.sequence[residue]
        if (own, name) in FREE or name in ("H1", "H2", "H3") or (own == "LYS" and name[:2] == "HZ"):
            continue
        out = made[number] - parents[number]
        ways = slots[residue] - parents[number]
        length = np.linalg.norm(ways, axis=-1)
        near = length < 0.11
        cosine = ways[near] @ out / (length[near] * np.linalg.norm(out))
        off.append(np.rad2deg(np.arccos(min(cosine.max(), 1.0))))
    assert len(off) > 1000
    assert np.median(off) < 4
    assert np.max(off) < 25  # a frame of a simulation, whose angles are not ideal


def test_pairs_are_those_of_all_atoms_that_touch_and_may_move_apart(stage, protein):
    """Against a search among all atoms with the bonds of the whole molecule."""
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    atoms = with_hydrogens(scene)
    moving = system.torsion_mask[:, Role.CHI1] & ~system.proline
    level = (levels_of_slots(scene.kind) * moving.unsqueeze(-1)).flatten()
    pairs = touching_pairs(scene, system, atoms, level > 0)
    points = atoms.flatten(0, 2)
    gap = (points[pairs.first] - points[pairs.second]).norm(dim=-1)
    found = {*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}
    assert len(found) == len(gap)
    assert ((level[pairs.first] > 0) | (level[pairs.second] > 0)).all()
    there = torch.nonzero(points[:, 0] < 500)[:, 0]
    apart = torch.cdist(points[there].double(), points[there].double())
    one, two = torch.nonzero((apart < 0.19).triu(1), as_tuple=True)
    one, two = there[one], there[two]
    far = (one // SLOTS - two // SLOTS).abs() > 1
    touching = far & ((level[one] > 0) | (level[two] > 0))
    hydrogens = (one % SLOTS >= MAX_ATOMS) & (two % SLOTS >= MAX_ATOMS)
    expected = {
        *zip(one[touching & hydrogens].tolist(), two[touching & hydrogens].tolist(), strict=True)
    }
    assert expected
    assert expected <= found


def test_members_have_a_third_of_the_overlaps_and_the_same_bonds(stage, protein, monkeypatch):
    topology, fine = protein
    eased = member(stage, topology, fine)
    monkeypatch.setattr(drawing, "ease", lambda *_: None)
    pushed = member(stage, topology, fine)
    before, after = (clashscore(topology, x.numpy())[0] for x in (pushed, eased))
    assert after < 0.4 * before
    _, system = scene_of(stage, topology, fine)
    assert torch.equal(eased[:, topology.ca_index], pushed[:, topology.ca_index])
    assert float((eased - pushed).norm(dim=-1).max()) < 0.3
    old, new = internal_of(pushed, system), internal_of(eased, system)
    turns = system.role < N_TORSIONS
    torch.testing.assert_close(new[..., 0], old[..., 0], atol=1e-4, rtol=0)
    at_ends = (system.role == Role.START_N) | (system.role == Role.END_C)  # N-CA-C there
    torch.testing.assert_close(new[:, ~at_ends, 1], old[:, ~at_ends, 1], atol=1e-4, rtol=0)
    turn = (new - old)[0, :, 2]
    turn = torch.atan2(turn.sin(), turn.cos()).abs()
    assert float(turn[~turns].max()) < 1e-2
    turn = turn[system.torsion_index[:, Role.PLANE]]
    planes = planes_ahead(system)
    assert 0.1 < float(turn[planes].max()) < math.radians(15.1)
    assert float(turn[system.leads & ~planes].max()) < 1e-3  # before proline
    off = [(n_ca_c(topology, x) - 111.0).square().mean() for x in (pushed, eased)]
    assert off[1] < off[0]


def n_ca_c(topology, fine):
    names = ("N", "CA", "C")
    atoms = [[topology.atom_index[i, x] for x in names] for i in range(topology.n_residues)]
    return torch.rad2deg(angle(*fine[:, torch.tensor(atoms)].unbind(2)))


def test_screws_are_what_small_turns_do(stage, protein):
    """All joints at once, against where the turned atoms are."""
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine.double())
    atoms = with_hydrogens(scene)
    moving = system.torsion_mask[:, Role.CHI1] & ~system.proline
    joints = joints_of(scene, atoms, moving, planes_ahead(system))
    centre = atoms[:, :, 1:2].expand_as(atoms)
    local = (atoms - centre).flatten(0, 2).T.contiguous()
    along, moment = screws(local, joints)
    turn = torch.randn(topology.n_residues, N_CHI + 1, generator=torch.Generator().manual_seed(1))
    turn = joints.of_all(turn.double())
    small = 1e-5
    ends = [moved(local, joints, along, by * turn) for by in (small, -small)]
    found = (ends[0] - ends[1]) / (2 * small)
    row, part = joints.place // SLOTS, joints.part[joints.place]
    turn = turn[row] * moved_by(turn.device)[part]
    arm = local[:, joints.place].unsqueeze(-1)
    rate = torch.linalg.cross(along[:, row], arm.expand_as(along[:, row]), dim=0) + moment[:, row]
    torch.testing.assert_close(found, (rate * turn).sum(-1), atol=1e-6, rtol=1e-4)


def test_a_curled_side_chain_leaves_its_own_backbone(stage, protein):
    """Hydrogens of lysine that lie on the oxygen of their own residue, which is alone, come off it."""
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    residue = next(i for i, name in enumerate(topology.sequence) if name == "LYS" and i > 3)
    scene.atoms[:, torch.arange(topology.n_residues) != residue] = AWAY
    row = torch.tensor([residue])
    kind = scene.kind[row]
    (slot,) = torch.nonzero(levels_of_slots(kind)[0, :MAX_ATOMS] > 0, as_tuple=True)
    ways = torch.cartesian_prod(*[torch.arange(0.0, 360.0, 30.0).deg2rad()] * 4)
    local = scene.atoms[0, row] - scene.atoms[0, row, 4:5]
    found = turned(local, kind, torch.zeros_like(slot), slot, ways) + scene.atoms[
        0, residue, 4
    ].view(3, 1, 1)
    oxygen = scene.atoms[0, residue, 3]
    nearest = (found - oxygen.view(3, 1, 1)).norm(dim=0).amin(0)
    way = int((nearest - 0.22).abs().argmin())
    scene.atoms[0, residue, slot] = found[:, :, way].T

    def gap() -> float:
        hydrogens = with_hydrogens(scene)[0, residue, MAX_ATOMS + 1 :]
        return float((hydrogens - scene.atoms[0, residue, 3]).norm(dim=-1).min())

    before = gap()
    ease(scene, system, torch.arange(topology.n_residues) == residue, NONE)
    assert gap() > min(before + 0.02, 0.22)


def test_a_box_brings_the_same_contacts_as_a_whole_molecule(stage, protein):
    """What lies across the border of the box is what lies there without one."""
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    atoms = with_hydrogens(scene)
    moving = system.torsion_mask[:, Role.CHI1] & ~system.proline
    moves = (levels_of_slots(scene.kind) * moving.unsqueeze(-1)).flatten() > 0
    whole = touching_pairs(scene, system, atoms, moves)
    cell = torch.eye(3).unsqueeze(0) * 20.0
    box = Box(cell, torch.linalg.inv(cell))
    boxed = touching_pairs(scene._replace(box=box), system, atoms, moves)
    pairs = [{*zip(x.first.tolist(), x.second.tolist(), strict=True)} for x in (whole, boxed)]
    assert pairs[0] == pairs[1]
    assert float(boxed.shift.abs().max()) < 1e-5


def test_beads_that_are_given_hold_their_side_chains(stage, protein):
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    moving = system.torsion_mask[:, Role.CHI1] & ~system.proline
    shares = torch.zeros(topology.n_residues, 1, MAX_ATOMS)
    shares[:, 0, 5:14] = (levels_of_slots(scene.kind)[:, 5:14] > 0) & scene.there[:, 5:14]
    shares /= shares.sum(-1, keepdim=True).clamp_min(1)
    atoms = scene.atoms.masked_fill(scene.atoms > 500, 0.0)
    beads = torch.einsum("rma,frax->frmx", shares, atoms)
    beads = beads.masked_fill(~moving.view(1, -1, 1, 1), torch.nan)

    def missed(tolerance: float | None) -> float:
        held = None if tolerance is None else GivenBeads(beads, shares, tolerance)
        copy = scene._replace(atoms=scene.atoms.clone(), beads=held)
        ease(copy, system, moving, planes_ahead(system))
        found = torch.einsum(
            "rma,frax->frmx", shares, copy.atoms.masked_fill(copy.atoms > 500, 0.0)
        )
        return float((found - beads)[:, moving].norm(dim=-1).square().mean().sqrt())

    assert missed(0.001) < 0.3 * missed(None)
    assert missed(0.02) < missed(None)


def test_one_way_for_each_row_is_one_of_many_ways(stage, protein):
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    (residue,) = torch.nonzero(system.torsion_mask[:, Role.CHI1] & ~system.proline, as_tuple=True)
    kind = scene.kind[residue]
    local = with_hydrogens(scene)[0, residue]
    local = local - local[:, 4:5]
    level = levels_of_slots(kind)
    own, slot = torch.nonzero(level > 0, as_tuple=True)
    angles = torch.tensor([0.3, -0.5, 0.7, -0.2])
    many = turned(local, kind, own, slot, angles.unsqueeze(0)).squeeze(-1)
    ends = ends_of_torsions(kind)
    row = torch.arange(len(kind)).unsqueeze(-1)
    start, end = local[row, ends[..., 0]], local[row, ends[..., 1]]
    axis = torch.nn.functional.normalize(end - start, dim=-1).permute(2, 0, 1)
    moves = turns(axis, end.permute(2, 0, 1), angles.expand(len(kind), -1))
    move = moves[..., own * N_CHI + level[own, slot] - 1]
    one = torch.einsum("xyp,py->xp", move[:, :3], local[own, slot]) + move[:, 3]
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0)


def test_glycine_has_hydrogens_and_nothing_to_turn(stage, protein):
    topology, fine = protein
    scene, system = scene_of(stage, topology, fine)
    before = scene.atoms.clone()
    ease(scene, system, scene.kind == list(RESIDUES).index("GLY"), NONE)
    assert torch.equal(scene.atoms, before)
    assert torch.equal(flat(scene.atoms, system), flat(before, system))
