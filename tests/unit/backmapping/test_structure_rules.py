"""Structures that no protein has are told from those that are."""

import numpy as np
import pytest
from judged_campaign import load_example

from hpcbackmap.backmapping.structure_rules import impossible


@pytest.fixture(scope="module")
def structures(example_dir):
    """Three frames of the example, float64 [3, A, 3]."""
    topology, positions = load_example(example_dir, frames=3)
    return topology, positions.astype(np.float64)


def test_real_structures_are_possible_and_their_mirror_images_are_not(structures):
    topology, positions = structures
    assert impossible(topology, positions).tolist() == [False] * 3
    assert impossible(topology, positions * [1, 1, -1]).tolist() == [True] * 3


def test_one_residue_of_the_other_hand_is_enough(structures):
    """CB on the other side of the plane of N, CA and C."""
    topology, positions = structures
    n, ca, c, cb = (positions[1, topology.atom_index[5, name]] for name in ("N", "CA", "C", "CB"))
    normal = np.cross(n - ca, c - ca)
    normal /= np.linalg.norm(normal)
    changed = positions.copy()
    changed[1, topology.atom_index[5, "CB"]] = cb - 2 * ((cb - ca) @ normal) * normal
    assert impossible(topology, changed).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("length", "broken"), [(0.07, True), (0.12, False), (0.28, False), (0.32, True)]
)
def test_a_peptide_bond_has_a_length(structures, length, broken):
    topology, positions = structures
    changed = positions.copy()
    first, second = topology.atom_index[9, "C"], topology.atom_index[10, "N"]
    step = changed[2, second] - changed[2, first]
    after = np.flatnonzero(topology.atom_residue >= 10)
    changed[2, after] += step * (length / np.linalg.norm(step) - 1)
    assert impossible(topology, changed).tolist() == [False, False, broken]


def test_a_structure_without_numbers_is_not_judged(structures):
    topology, positions = structures
    changed = positions.copy()
    changed[0] = np.nan
    assert impossible(topology, changed).tolist() == [False] * 3
