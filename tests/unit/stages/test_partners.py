"""Polar side chains of members meet partners: hydrogen bonds and salt bridges."""

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.residues import MAX_ATOMS, RESIDUE_INDEX, RESIDUES
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot import drawing, partners
from hpcbackmap.stages.genzprot.dense_atoms import AWAY, Scene
from hpcbackmap.stages.noise import frame_noise

MEMBERS = 3
PLUS = {("LYS", "NZ"), ("ARG", "NE"), ("ARG", "NH1"), ("ARG", "NH2")}
MINUS = {("ASP", "OD1"), ("ASP", "OD2"), ("GLU", "OE1"), ("GLU", "OE2")}


@pytest.fixture(scope="module")
def protein(data_dir):
    """Topology of adenylate kinase and two frames, float32 [2, A, 3]."""
    path = data_dir / "adenylate_kinase"
    loaded = mdtraj.load(str(path / "adk_dims_a.xtc"), top=str(path / "adk_dims_a_top.pdb"))[::90]
    topology, order, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "adk")
    return topology, torch.from_numpy(loaded.xyz[:2, order])


def salt_bridges(topology, atoms) -> int:
    """Pairs of N and O of charged side chains within 4 Angstrom, in all structures [S, A, 3]."""
    names = [
        (topology.sequence[r], a)
        for r, a in zip(topology.atom_residue, topology.atom_names, strict=True)
    ]
    plus, minus = (np.array([name in group for name in names]) for group in (PLUS, MINUS))
    gaps = np.linalg.norm(atoms[:, plus, None] - atoms[:, None, minus], axis=-1)
    return int((gaps < 0.4).sum())


@pytest.mark.trains
def test_members_have_more_salt_bridges_than_without(protein, monkeypatch):
    topology, fine = protein
    stage = load_artifact(shipped_artifact())
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    coarse = fine[:, topology.ca_index]
    shape = (coarse.shape[1], stage.noise_width)
    noises = [torch.from_numpy(frame_noise(0, "x", [0, 1], m, *shape)) for m in range(MEMBERS)]
    drawn = torch.cat(stage.samples(coarse, system, noises))
    alone = torch.cat(stage.samples(coarse[:1], system, [noise[:1] for noise in noises]))
    torch.testing.assert_close(drawn[::2], alone, rtol=0, atol=1e-5)
    monkeypatch.setattr(drawing, "meet", lambda *_: None)
    without = torch.cat(stage.samples(coarse, system, noises))
    met, unmet = (salt_bridges(topology, x.numpy()) for x in (drawn, without))
    assert met > 1.2 * unmet, (met, unmet)


def scene_of(*residues, gap):
    """Residues whose last side-chain atoms lie ``gap`` nm apart; all else is far from the other's."""
    kind = torch.tensor([RESIDUE_INDEX[name] for name, _ in residues])
    atoms = torch.full((1, 2, MAX_ATOMS, 3), AWAY)
    there = torch.zeros(2, MAX_ATOMS, dtype=torch.bool)
    for place, (name, atom) in enumerate(residues):
        slots = RESIDUES[name].atoms
        there[place, : len(slots)] = True
        atoms[0, place, : len(slots)] = torch.tensor([0.0, 3.0 * (-1) ** place, 0.0])
        atoms[0, place, 4] = torch.tensor([0.0, 0.3 * (-1) ** place, 0.0])
        atoms[0, place, slots.index(atom)] = torch.tensor([gap * place, 0.0, 0.0])
    near = torch.tensor([[[0, 1], [1, 0]]])
    own = torch.arange(2)
    return Scene(atoms, near, None, there, kind, own, own)


def worth(scene) -> float:
    zero = torch.tensor([0])
    return float(partners.gains(scene.atoms[:, 0].unsqueeze(1), scene, zero, zero))


@pytest.mark.parametrize(
    ("one", "other", "gap", "nats"),
    [
        (("LYS", "NZ"), ("GLU", "OE1"), 0.29, partners.SALT_BRIDGE),
        (("GLU", "OE2"), ("ARG", "NH1"), 0.33, partners.SALT_BRIDGE / 2),
        (("SER", "OG"), ("GLU", "OE1"), 0.29, partners.HYDROGEN_BOND),
        (("GLN", "NE2"), ("LEU", "O"), 0.29, partners.HYDROGEN_BOND),
        (("HIS", "NE2"), ("HIS", "NE2"), 0.29, partners.HYDROGEN_BOND),
        (("LYS", "NZ"), ("LEU", "N"), 0.29, 0.0),
        (("ASP", "OD1"), ("PRO", "N"), 0.29, 0.0),
        (("ASP", "OD1"), ("GLU", "OE1"), 0.29, 0.0),
        (("LYS", "NZ"), ("GLU", "OE1"), 0.36, 0.0),
        (("LYS", "NZ"), ("ARG", "NH1"), 0.24, -1.0),
    ],
)
def test_a_pair_is_worth_what_its_atoms_can_do(one, other, gap, nats):
    assert worth(scene_of(one, other, gap=gap)) == pytest.approx(nats, abs=1e-4)


def test_a_partner_is_met_in_the_image_that_is_near():
    far = scene_of(("LYS", "NZ"), ("GLU", "OE1"), gap=4.29)
    assert worth(far) == 0
    shift = torch.zeros(1, 2, 2, 3)
    shift[0, 0, 1, 0] = -4.0
    assert worth(far._replace(shift=shift)) == pytest.approx(partners.SALT_BRIDGE, abs=1e-4)
