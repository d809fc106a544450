"""`hpcbackmap backmap TRAJECTORY`: atoms for a C-alpha file without a campaign."""

import json

import mdtraj
import pytest
from commands import EXAMPLE, REPOSITORY, hpcbackmap, succeed

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage

TRAJECTORY = (EXAMPLE / "trpcage_top.pdb",)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    return save_artifact(stage, tmp_path_factory.mktemp("stage") / "ca-fg", {})


def test_two_members_of_a_trajectory(artifact, tmp_path):
    arguments = ["--artifact", artifact, "-o", tmp_path / "made.xtc", "--members", 2, "--json"]
    result = succeed("backmap", *TRAJECTORY, *arguments)
    record = json.loads(result.stdout)
    assert record["members"] == 2
    assert record["residues"] == 20
    for path in record["output"]:
        made = mdtraj.load(path, top=record["topology"])
        assert made.n_frames == record["frames"]
        assert made.n_atoms == record["atoms"]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 2, "say where to write: --output"),
        (["-o", "x.pdb", "--mode", "--members", "2"], 2, "--members or --mode, not both"),
        (["-o", "x.pdb", "backmap.seed=3"], 2, "only for a campaign"),
        (["-o", "x.pdb", "--artifact", "nowhere"], 3, "nowhere/config.json: no artifact here"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, code, reason):
    result = hpcbackmap("backmap", *TRAJECTORY, *arguments)
    assert result.returncode == code
    assert reason in result.stderr
    assert "Traceback" not in result.stderr


def test_inspect_tells_of_the_shipped_stage():
    result = hpcbackmap("inspect", "shipped", "--json")
    if (REPOSITORY / "hpcbackmap" / "weights" / "ca-fg" / "model.safetensors").exists():
        assert json.loads(result.stdout)["stage"] == "ca-fg"
    else:
        assert result.returncode == 3
        assert "no trained stage" in result.stderr
