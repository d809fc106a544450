"""A trajectory of the example, its C-alpha atoms, and a stage that need not be good."""

import pytest

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage

FRAMES = 7


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An untrained stage: what it draws is poor, but it draws."""
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    return save_artifact(stage, tmp_path_factory.mktemp("stage") / "ca-fg", {})


@pytest.fixture(scope="module")
def truth(example_run):
    """The first frames of the example: all atoms, hydrogens included where the file has them."""
    return example_run[:FRAMES]


@pytest.fixture
def trace(truth, tmp_path):
    """A C-alpha trajectory (DCD, which keeps float32) and its topology."""
    calpha = truth.atom_slice(truth.topology.select("name CA"))
    calpha.save_dcd(str(tmp_path / "ca.dcd"))
    calpha[0].save_pdb(str(tmp_path / "ca.pdb"))
    return tmp_path / "ca.dcd", tmp_path / "ca.pdb"
