"""Chains and disulphides of files and sequences."""

import mdtraj
import numpy as np

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence


def test_a_cysteine_has_one_partner():
    """Three sulphur atoms within reach of one another, as in a zinc site: the nearest two are bonded."""
    topology = topology_from_sequence(["C", "C", "C"])
    positions = np.random.default_rng(0).normal(size=(topology.n_atoms, 3))
    sulphur = [topology.atom_index[i, "SG"] for i in range(3)]
    positions[sulphur] = [[0, 0, 0], [0.24, 0, 0], [0.24, 0.21, 0]]
    found, _, _ = topology_from_mdtraj(topology.to_mdtraj(), positions, "three.pdb")
    assert found.disulphides == ((1, 2),)


def test_no_two_chains_have_one_name():
    topology = topology_from_sequence(["A"] * 1000)
    assert topology.chain_ids[:27] == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZa")
    assert len(set(topology.chain_ids)) == 1000
    assert len({topology.label(residue) for residue in range(1000)}) == 1000
    loaded = mdtraj.Topology()
    for _ in range(100):
        loaded.add_atom("CA", mdtraj.element.carbon, loaded.add_residue("GLY", loaded.add_chain()))
    found, _, _ = topology_from_mdtraj(loaded, np.arange(300.0).reshape(100, 3), "many.gro")
    assert len(set(found.chain_ids)) == 100
