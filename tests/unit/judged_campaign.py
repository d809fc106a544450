"""A small campaign with a real ensemble and an invented answer, for the tests of the judge."""

import json

import mdtraj
import numpy as np

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.metrics.judge import judge, metric
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.store.store import create_store

MEMBERS = 2
LADDER = ["fg", "ca", "ucg:5"]
TOLD = {
    "clashes_per_100_residues": 0.25,
    "ramachandran_outliers_percent": 1.5,
    "expected_error_angstrom": 1.2,
    "relaxation": {
        "relaxed": 16,
        "failed": 0,
        "kj_per_mol_residue_before": -17.0,
        "kj_per_mol_residue_after": -148.0,
        "with": "ff14SB",
    },
}
"""What a run with expected errors has told."""


def load_example(example_dir, frames=40):
    """Topology and evenly spaced heavy-atom positions [frames, A, 3] of the example ensemble."""
    top = str(example_dir / "trpcage_top.pdb")
    trajectory = mdtraj.load(str(example_dir / "trpcage.xtc"), top=top)
    topology, index, _ = topology_from_mdtraj(trajectory.topology, trajectory.xyz[0], top)
    keep = np.linspace(0, trajectory.n_frames - 1, frames).astype(int)
    return topology, trajectory.xyz[keep][:, index]


def judged(topology, truth, generated, **more):
    """The value of every metric for one answer [F, A, 3] per frame."""
    rows = judge(topology, truth, generated[:, None], **more)
    return {name: metric(name).reduce(rows[name]) for name in rows}


def write_store(path, ladder, positions, resolutions, provenance, observables, errors=None):
    """A finished store of one system from heavy atoms [rows, A, 3]; errors: expected of residues [rows, R]."""
    kinds = dict.fromkeys(observables, "int64")
    campaign = Campaign(name="x", ladder=LADDER, systems=[{"name": "x", "trajectories": ["x"]}])
    rows = len(positions)
    store = create_store(
        path, {"trpcage": ladder}, {"trpcage": rows}, resolutions, campaign.store, provenance,
        shard_frames=rows, observables=kinds,
        residue_values=None if errors is None else {"expected_error": "float16"},
    )  # fmt: skip
    levels = ladder.coarsen(positions.astype(np.float32))
    shard = {name: levels[name] for name in resolutions}
    of_residues = {} if errors is None else {"expected_error": errors.astype(np.float16)}
    store.system("trpcage").write_shard(0, shard, observables, of_residues)
    told = {} if errors is None else {"structures": TOLD}
    store.mark_complete(**told)


def make_campaign(folder, topology, positions, answer, source=None, errors=None, **sections):
    """Stores of a campaign whose model answered ``answer(truth [F, A, 3], member)`` for test frames.

    source: frames that were backmapped; default: the last fifth, which the split holds out. errors: expected
    error of each residue, nm [R], the same in all structures.
    """
    ladder = build_ladder(topology, LADDER)
    campaign = Campaign(
        name="judged",
        workdir=str(folder),
        ladder=LADDER,
        systems=[{"name": "trpcage", "trajectories": ["unused.xtc"]}],
        stages={
            "ca-fg": {"model": {"kind": "genzprot"}},
            "ucg5-ca": {"model": {"kind": "cgvae"}},
        },
        **sections,
    )
    n = len(positions)
    source = np.arange(n - n // 5, n) if source is None else np.asarray(source)
    write_store(folder / "frames.zarr", ladder, positions, ["fg", "ca", "ucg5"], {}, {})
    members = [answer(positions[source], m) for m in range(MEMBERS)]
    generated = np.stack(members, axis=1).reshape(-1, *positions.shape[1:])
    observables = {
        "source_frame": np.repeat(source, MEMBERS),
        "member": np.tile(np.arange(MEMBERS), len(source)),
    }
    if errors is not None:
        errors = np.tile(errors, (len(generated), 1))
    write_store(
        folder / "backmapped.zarr", ladder, generated, ["fg", "ca"], {}, observables, errors
    )
    return campaign


def write_training_records(campaign):
    """Records of both stages as a trainer writes them, the last line cut off by a crash."""
    for stage in campaign.stages:
        path = campaign.path(f"stages/{stage}/metrics.jsonl")
        path.parent.mkdir(parents=True)
        lines = [json.dumps({"kind": "train", "step": k, "loss": 9 / (k + 1)}) for k in range(50)]
        lines += [
            json.dumps({"kind": "validation", "step": k, "loss": 9.5 / (k + 1), "kl": 2.0})
            for k in (20, 40)
        ]
        path.write_text("\n".join([*lines, '{"step": 50, "lo']))
