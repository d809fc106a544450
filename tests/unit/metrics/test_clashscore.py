"""Clashscore: what MolProbity counts, on structures whose clashes are known."""

import numpy as np
import pytest

from hpcbackmap.metrics.clashscore import clashscore
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import topology_from_sequence


@pytest.fixture(scope="module")
def crystal(example_run):
    frames = example_run[:3]
    topology, atoms, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "example")
    return topology, frames.xyz[:, atoms]


def test_frames_of_a_simulation_have_few_and_none_if_blown_up(crystal):
    topology, frames = crystal
    assert (clashscore(topology, frames) < 40).all()
    apart = clashscore(topology, 1.3 * frames)
    assert (apart <= clashscore(topology, frames)).all()
    assert (clashscore(topology, 0.8 * frames) > 200).all()


def test_two_molecules_of_water_like_distance_count_by_what_they_are():
    """Two alanines far apart; one atom of the second is brought to an atom of the first, at one distance."""
    topology = topology_from_sequence(["A", "A"])
    lone = np.array(
        [
            [0, 0, 0],
            [0.146, 0, 0],
            [0.2, 0.14, 0],
            [0.12, 0.23, 0.03],
            [0.2, -0.07, 0.12],
            [0.32, 0.15, 0],
        ]
    )
    index = topology.atom_index
    one = np.zeros((topology.n_atoms // 2, 3))
    for row, name in zip(lone, ("N", "CA", "C", "O", "CB", "OXT"), strict=True):
        one[index[0, name]] = row
    far = np.concatenate([one, one + [0, 0, 3.0]])
    none = clashscore(topology, far[None])[0]
    near = np.concatenate([one, -one + 2 * one[index[0, "OXT"]] + [0.26, 0, 0]])
    close = np.concatenate([one, -one + 2 * one[index[0, "OXT"]] + [0.22, 0, 0]])
    found = clashscore(topology, np.stack([near, close]))
    atoms = 1000 / (topology.n_atoms + 2 * 8)
    assert found[0] == pytest.approx(none), "two oxygens 2.6 A apart overlap by 0.2"
    assert found[1] - none == pytest.approx(atoms, rel=0.2), "2.2 A apart by 0.6"


def test_a_structure_without_numbers_has_no_score(crystal):
    topology, frames = crystal
    broken = frames.copy()
    broken[1, 5] = np.nan
    assert np.isnan(clashscore(topology, broken)).tolist() == [False, True, False]
