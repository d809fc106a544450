"""Pairs along the bonds, against a walk over them."""

import numpy as np

from hpcbackmap.metrics.close_pairs import count_pairs, pair_keys, pairs_within_two_bonds
from hpcbackmap.protein.topology import topology_from_sequence


def test_pairs_within_two_bonds_are_those_that_a_walk_finds():
    topology = topology_from_sequence(["ACDEFGHIKLMNPQRSTVWY", "GW"])
    bonded = {atom: set() for atom in range(topology.n_atoms)}
    for a, b in topology.bonds.tolist():
        bonded[a].add(b)
        bonded[b].add(a)
    walked = {(a, c) for a in bonded for b in bonded[a] for c in {b} | bonded[b] if a < c}
    expected = pair_keys(np.array(sorted(walked)), topology.n_atoms)
    assert np.array_equal(pairs_within_two_bonds(topology), expected)


def test_one_atom_has_no_pairs():
    assert count_pairs(np.zeros((1, 3)), 0.5) == 0
