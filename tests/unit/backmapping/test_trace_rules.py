"""What frames must be like, measured on the frames themselves."""

import numpy as np
import pytest
from as_beads import read
from lysozyme import load_lysozyme

from hpcbackmap.backmapping.trace_rules import (
    astray,
    find_unusable,
    handedness_in_words,
    measure_rules,
)


@pytest.fixture(scope="module")
def protein(data_dir):
    return load_lysozyme(data_dir)


def test_cis_links_that_fluctuate_break_no_frame(protein):
    """A cis link is 0.09 nm shorter than the others, and fluctuates as they do."""
    trace = protein.positions[:, protein.topology.ca_index]
    moved = trace + np.random.default_rng(0).normal(0, 0.017, trace.shape)
    rules = measure_rules(protein.topology, "ca", moved)
    assert 0.02 < rules.scatter < 0.03
    moved[0, 81] = moved[0, 80] + [0.0, 0.0, 0.235]
    moved[0, 82] = moved[0, 81] + [0.0, 0.3, 0.2]
    assert not find_unusable(protein.topology, moved[:1, :83], None)
    assert rules.low < 0.235
    steady = measure_rules(protein.topology, "ca", trace)
    assert steady.low == 0.25


def test_a_side_chain_bead_far_from_its_residue_makes_a_frame_unusable(protein):
    reading, frames = read(protein, "martini3")
    sites = frames[:, reading.sites["bb"]]
    assert astray(reading, frames, sites) == {}
    bead = int(reading.beads.particles[40])
    owner = protein.topology.label(int(reading.beads.residue[40]))
    wrong = frames.copy()
    wrong[0, bead] += 1.5
    wrong[2, bead] = np.nan
    found = astray(reading, wrong, sites)
    assert sorted(found) == [0, 2]
    assert f"bead of {owner} is 2." in found[0]
    assert found[2].endswith("is not finite")


def test_a_mirror_image_is_said(protein):
    trace = protein.positions[:, protein.topology.ca_index]
    assert handedness_in_words(protein.topology, trace) == []
    (words,) = handedness_in_words(protein.topology, -trace)
    assert "wind to the left, as in a mirror image" in words
