"""Measures against biotite, which computes them in its own way, on a real protein and a moved copy of it."""

import numpy as np
import pytest
from judged_campaign import load_example

from hpcbackmap.metrics.clashes import OVERLAP, clashing_pairs
from hpcbackmap.metrics.close_pairs import close_atoms, pairs_within_two_bonds
from hpcbackmap.metrics.lddt import lddt
from hpcbackmap.metrics.rmsd import aligned_rmsd, superpose
from hpcbackmap.protein.torsions import TORSIONS, dihedrals, torsion_atoms

structure = pytest.importorskip("biotite.structure", reason="biotite is in the extra `test`")

ANGSTROM = 10.0


@pytest.fixture(scope="module")
def example(example_dir):
    """Topology, frames [3, A, 3] and copies of them with 0.5 Å of noise, nm."""
    topology, frames = load_example(example_dir, frames=3)
    noise = np.random.default_rng(0).normal(scale=0.05, size=frames.shape)
    return topology, frames.astype(np.float64), frames + noise


def atoms_of(topology, positions):
    """A biotite array of one frame, in Å."""
    array = structure.AtomArray(topology.n_atoms)
    array.coord = (ANGSTROM * positions).astype(np.float32)
    array.res_id = topology.atom_residue + 1
    array.chain_id[:] = "A"
    array.atom_name = np.array(topology.atom_names)
    array.element = np.array([name[0] for name in topology.atom_names])
    return array


def test_lddt(example):
    topology, true, moved = example
    expected = [
        structure.lddt(atoms_of(topology, a), atoms_of(topology, b))
        for a, b in zip(true, moved, strict=True)
    ]
    found = [lddt(a, b[None], topology.atom_residue)[0] for a, b in zip(true, moved, strict=True)]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_superposition(example):
    topology, true, moved = example
    turned = moved @ np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]) + 3
    for i in range(len(true)):
        fitted, _ = structure.superimpose(
            atoms_of(topology, true[i]), atoms_of(topology, turned[i])
        )
        ours = ANGSTROM * superpose(turned[i][None], true[i][None])[0]
        np.testing.assert_allclose(ours, fitted.coord, atol=1e-3)
        expected = structure.rmsd(atoms_of(topology, true[i]), fitted)
        found = ANGSTROM * aligned_rmsd(turned[i][None], true[i][None])[0]
        assert found == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("kind", TORSIONS)
def test_dihedrals(example, kind):
    topology, true, _ = example
    atoms, _ = torsion_atoms(topology, kind)
    assert len(atoms)
    expected = structure.dihedral(*(true[:, atoms[:, k]] for k in range(4)))
    turn = np.angle(np.exp(1j * (dihedrals(true, atoms) - expected)))
    np.testing.assert_allclose(turn, 0, atol=1e-5)


def test_clashes(example):
    topology, true, moved = example
    near = pairs_within_two_bonds(topology)
    bonded = {(int(key) // topology.n_atoms, int(key) % topology.n_atoms) for key in near}
    found_any = 0
    for frame in (true[0], *moved):
        cells = structure.CellList((ANGSTROM * frame).astype(np.float32), cell_size=2.0)
        expected = {
            (i, int(j))
            for i in range(topology.n_atoms)
            for j in cells.get_atoms(ANGSTROM * frame[i], ANGSTROM * OVERLAP)
            if 0 <= i < j
        } - bonded
        pairs = clashing_pairs(topology, close_atoms(frame, OVERLAP), near, OVERLAP)
        assert {tuple(pair) for pair in pairs.tolist()} == expected
        found_any += len(expected)
    assert found_any
