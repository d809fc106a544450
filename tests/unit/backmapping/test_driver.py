"""Runs that share one output."""

from dataclasses import replace

import mdtraj

from hpcbackmap.backmapping import driver
from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage


def test_a_run_that_comes_second_takes_the_sizes_of_the_first(example_dir, tmp_path, monkeypatch):
    """Tasks of a job array start together, each measures, and all but one find a plan that is not theirs."""
    top = str(example_dir / "trpcage_top.pdb")
    calpha = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[:4]
    calpha.atom_slice(calpha.topology.select("name CA")).save_pdb(str(tmp_path / "ca.pdb"))
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    artifact = save_artifact(stage, tmp_path / "ca-fg", {})
    campaign = Campaign(
        name="t",
        workdir=str(tmp_path),
        ladder=["fg", "ca"],
        systems=[{"name": "s", "trajectories": [str(tmp_path / "ca.pdb")]}],
        stages={"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(artifact)}},
        backmap={"input": str(tmp_path / "frames.zarr"), "members": 1, "batch_frames": 1},
    )
    ingest(campaign, LocalComm())
    create = driver.create_output

    def after_another_run(campaign, plan, *where):
        create(campaign, replace(plan, shard_frames=plan.shard_frames + 1), *where)
        create(campaign, plan, *where)

    monkeypatch.setattr(driver, "create_output", after_another_run)
    found = driver.backmap(campaign, LocalComm(), part=(0, 1))
    assert (found["structures"], found["shards_missing"]) == (4, 0)
