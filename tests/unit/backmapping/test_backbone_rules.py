"""Backbones that cannot be kept are named, those of simulations are kept."""

import numpy as np
import pytest
from as_beads import read
from lysozyme import load_lysozyme

from hpcbackmap.backmapping.backbone_rules import impossible_backbone


@pytest.fixture(scope="module")
def backbone(data_dir):
    return read(load_lysozyme(data_dir), "backbone")


@pytest.fixture(scope="module")
def with_cb(data_dir):
    """The same with CB."""
    protein = load_lysozyme(data_dir)
    reading, frames = read(protein, "backbone")
    cb = [protein.topology.atom_index.get((i, "CB"), -1) for i in range(158)]
    sites, added = reading.sites["backbone"].copy(), protein.positions[:, cb]
    sites[:, 4] = np.where(np.array(cb) >= 0, frames.shape[1] + np.arange(158), -1)
    reading.sites["backbone"] = sites
    return reading, np.concatenate([frames, added], axis=1)


def test_backbones_of_a_simulation_are_kept(backbone, with_cb):
    assert impossible_backbone(*backbone) == {}
    assert impossible_backbone(*with_cb) == {}


def test_a_mirror_image_and_a_d_residue_are_named(with_cb):
    reading, frames = with_cb
    wrong = frames.copy()
    wrong[1] = -wrong[1]
    n, ca, c, _, cb = reading.sites["backbone"][40]
    normal = np.cross(wrong[2, n] - wrong[2, ca], wrong[2, c] - wrong[2, ca])
    normal /= np.linalg.norm(normal)
    wrong[2, cb] -= 2 * normal * (normal @ (wrong[2, cb] - wrong[2, ca]))
    found = impossible_backbone(reading, wrong)
    assert sorted(found) == [1, 2]
    assert f"{reading.topology.label(40)} stand as in a D-residue (1 of" in found[2]


def test_atoms_under_the_name_of_another_are_named(backbone):
    reading, frames = backbone
    n, _, _, o, _ = reading.sites["backbone"].T
    wrong = frames.copy()
    wrong[0, n], wrong[0, o] = frames[0, o], frames[0, n]
    (reason,) = impossible_backbone(reading, wrong).values()
    assert "are bonded but" in reason
    assert "--representation ca" in reason
