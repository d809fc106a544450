"""A campaign of one system of C-alpha atoms and a small stage that was never trained, ingested."""

from pathlib import Path

import mdtraj

from hpcbackmap.config.campaign import Campaign, GenzprotConfig
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.build import build_stage

__all__ = ["example_calphas", "ingested"]


def example_calphas(example_dir: Path) -> mdtraj.Trajectory:
    """Four frames of the example's C-alpha atoms."""
    top = str(example_dir / "trpcage_top.pdb")
    frames = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)[:4]
    return frames.atom_slice(frames.topology.select("name CA"))


def ingested(calpha: mdtraj.Trajectory, folder: Path, **backmap) -> Campaign:
    """The campaign in ``folder``; all frames are its input. backmap: further keys of that section."""
    calpha.save_pdb(str(folder / "ca.pdb"))
    ladder = build_ladder(topology_from_sequence(["ACDEFGHIK"]), ["fg", "ca"])
    stage = build_stage("ca-fg", GenzprotConfig(width=8, layers=1, neighbours=4), [ladder], 0)
    artifact = save_artifact(stage, folder / "ca-fg", {})
    campaign = Campaign(
        name="t",
        workdir=str(folder),
        ladder=["fg", "ca"],
        systems=[{"name": "s", "trajectories": [str(folder / "ca.pdb")]}],
        stages={"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(artifact)}},
        backmap={"input": str(folder / "frames.zarr"), **backmap},
    )
    ingest(campaign, LocalComm())
    return campaign
