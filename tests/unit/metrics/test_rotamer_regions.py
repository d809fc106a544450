"""Rotamer outliers: a simulation has few, atoms anywhere have many, a flip of alike atoms is none."""

import numpy as np

from hpcbackmap.metrics.rotamer_regions import _region, place_of, rotamer_regions
from hpcbackmap.protein.residues import RESIDUES


def test_a_simulation_has_few_and_atoms_anywhere_have_many(example):
    topology, positions = example
    favoured, outliers = rotamer_regions(topology, positions)
    assert outliers.shape == (100, sum(name not in ("ALA", "GLY") for name in topology.sequence))
    assert not (favoured & outliers).any()
    assert outliers.mean() < 0.05
    noise = 0.1 * np.random.default_rng(0).normal(size=positions.shape)
    assert rotamer_regions(topology, positions + noise)[1].mean() > 0.25


def test_known_rotamers_are_favoured_and_eclipsed_torsions_outliers():
    good = {"LEU": (-65, 175), "VAL": (175,), "PHE": (-65, 95), "LYS": (-67, 180, 180, 180)}
    bad = {"LEU": (0, 0), "VAL": (120,), "PHE": (120, 0), "LYS": (0, 0, 0, 0)}
    for name, angles in good.items():
        assert _region(name, "favoured")[tuple(place_of(name, np.deg2rad(angles)))]
    for name, angles in bad.items():
        assert not _region(name, "allowed")[tuple(place_of(name, np.deg2rad(angles)))]
    for name, template in RESIDUES.items():
        if any(row.chi for row in template.placements):
            allowed, favoured = _region(name, "allowed"), _region(name, "favoured")
            assert not (favoured & ~allowed).any()
            assert favoured.any()


def test_half_a_turn_of_alike_atoms_changes_nothing():
    for name, turn in (("PHE", (0, 180)), ("ASP", (0, 180)), ("GLU", (0, 0, 180))):
        angles = np.deg2rad(np.array([-65.0, 170.0, -20.0])[: len(turn)])
        assert (place_of(name, angles) == place_of(name, angles + np.deg2rad(turn))).all()
    turned = np.deg2rad(np.array([-65.0, 80.0]))
    assert (place_of("TRP", turned) != place_of("TRP", turned + [0, np.pi])).any()


def test_residues_without_torsions_are_neither(example):
    topology, positions = example
    broken = np.zeros_like(positions[:1])
    favoured, outliers = rotamer_regions(topology, broken)
    assert not favoured.any()
    assert not outliers.any()
