"""Phi of prolines under every rotation of the planes beside them, and the room of CD that hangs on it."""

import math

import mdtraj
import numpy as np
import pytest
import torch

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.zmatrix import Role
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot import proline
from hpcbackmap.stages.genzprot.dense_atoms import backbone_atoms
from hpcbackmap.stages.genzprot.ideal_geometry import internal_of
from hpcbackmap.stages.genzprot.plane_tables import angle_tables, ones_cos_sin
from hpcbackmap.stages.genzprot.planes import BINS, _places
from hpcbackmap.stages.genzprot.torsions import centres
from hpcbackmap.stages.noise import frame_noise
from tests.unit.stages.test_heavy_atoms import make


@pytest.fixture(scope="module")
def trpcage(example_dir):
    """Four prolines, two of them in a row."""
    top = mdtraj.load(str(example_dir / "trpcage_top.pdb"))
    topology, index, _ = topology_from_mdtraj(top.topology, top.xyz[0], "trpcage")
    return topology, torch.from_numpy(top.xyz[:, index].astype(np.float64))


def judged(turns, internal, coarse, system):
    """What phi of all prolines costs in structures with planes ``turns`` [F, R]: [F, R], by its residue."""
    torsions = internal[:, system.torsion_index, 2].clone().expand(len(turns), -1, -1).clone()
    torsions[..., Role.PLANE] = turns
    atoms = backbone_atoms(
        internal.expand(len(turns), -1, -1), torsions, coarse.expand(len(turns), -1, -1), system
    ).numpy()
    n, ca, c = (atoms[:, :, k] for k in range(3))
    before = c[:, system.bead_previous]
    first, second, third = n - before, ca - n, c - ca
    over, under = np.cross(first, second), np.cross(second, third)
    phi = np.arctan2(
        np.linalg.norm(second, axis=-1) * (first * under).sum(-1), (over * under).sum(-1)
    )
    away = np.abs((phi - proline.MIDDLE + math.pi) % (2 * math.pi) - math.pi)
    cost = 0.5 * ((away - proline.HALF).clip(0) / proline.SOFTNESS) ** 2
    return torch.from_numpy(cost) * (system.proline & system.bonded & system.leads)


def test_every_rotation_costs_what_phi_of_both_prolines_says(trpcage):
    topology, fine = trpcage
    _, system, coarse, _ = make(topology, fine)
    internal = internal_of(fine, system)
    tables = angle_tables(coarse, internal, system)
    turns = torch.linspace(-3, 3, len(system.place), dtype=torch.float64).flip(0).unsqueeze(0)
    angles = centres(BINS, turns)
    bins, turned = ones_cos_sin(angles), ones_cos_sin(turns)
    nothing = torch.zeros(1, len(system.place), BINS, dtype=torch.float64)
    found = proline.add_ring_strain(nothing, turned, bins, tables, _places(system, None), system)
    for plane in range(len(system.place) - 1):
        swept = turns.repeat(BINS, 1)
        swept[:, plane] = angles
        cost = judged(swept, internal, coarse, system)[:, plane : plane + 2].sum(-1)
        torch.testing.assert_close(found[0, plane], cost, atol=1e-6, rtol=1e-6)
    assert (found[0].amax(-1) > 10).sum() == 6, "three in a row have four planes, one has two"
    rows = (torch.zeros(5, dtype=torch.int64), torch.tensor([3, 10, 11, 16, 18]))
    some = proline.add_ring_strain(
        nothing[rows], turned, bins, tables, _places(system, rows), system
    )
    torch.testing.assert_close(some, found[rows])


def test_rings_keep_off_the_carbonyl_before_them(trpcage):
    """C-alpha atoms displaced by 0.5 A a component, as a coarser stage may leave them."""
    topology, fine = trpcage
    ladder = build_ladder(topology, ["fg", "ca"])
    stage = load_artifact(shipped_artifact())
    system = collate([stage.describe(ladder)])
    calpha = fine[:, topology.ca_index].float()
    shift = torch.randn(100, len(calpha[0]), 3, generator=torch.Generator().manual_seed(0))
    noise = frame_noise(0, "x", [*range(100)], 0, len(calpha[0]), stage.noise_width)
    made = stage.sample(calpha + 0.05 * shift, system, torch.from_numpy(noise))
    names = np.array(topology.atom_names)
    residues = np.array(topology.atom_residue)
    pressed = 0
    for residue in (11, 16, 17, 18):
        (cd,) = np.flatnonzero((residues == residue) & (names == "CD"))
        (oxygen,) = np.flatnonzero((residues == residue - 1) & (names == "O"))
        pressed += int(((made[:, cd] - made[:, oxygen]).norm(dim=-1) < 0.2).sum())
    assert pressed <= 3
