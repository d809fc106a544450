"""Frames in a store of C-alpha atoms that no structure can be made of."""

import mdtraj
import numpy as np

from hpcbackmap.backmapping.driver import backmap
from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import open_store


def test_a_straight_line_of_calphas_is_quarantined(example_dir, tmp_path):
    top = str(example_dir / "trpcage_top.pdb")
    calpha = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[:4]
    calpha = calpha.atom_slice(calpha.topology.select("name CA"))
    calpha.xyz[2, 18:] = calpha.xyz[2, 17] + 0.38 * np.array([[0, 0.6, 0.8], [0, 1.2, 1.6]])
    calpha.save_pdb(str(tmp_path / "ca.pdb"))
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    artifact = save_artifact(stage, tmp_path / "ca-fg", {})
    campaign = Campaign(
        name="t",
        workdir=str(tmp_path),
        ladder=["fg", "ca"],
        systems=[{"name": "s", "trajectories": [str(tmp_path / "ca.pdb")]}],
        stages={"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(artifact)}},
        backmap={"input": str(tmp_path / "frames.zarr"), "members": 2},
    )
    ingest(campaign, LocalComm())
    quarantined = backmap(campaign, LocalComm())["quarantined"]
    assert [(item["frame"], item["member"]) for item in quarantined] == [(2, 0), (2, 1)]
    assert "on one line" in quarantined[0]["reason"]
    system = open_store(tmp_path / "backmapped.zarr").system("s")
    unusable = np.isnan(system.read("fg", 0, 8)).all(axis=(1, 2))
    assert unusable.tolist() == [False] * 4 + [True] * 2 + [False] * 2
