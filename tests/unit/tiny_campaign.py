"""A campaign of small molecules with ingested frames and untrained stages, made in a second."""

import numpy as np
import torch

from hpcbackmap.config.campaign import Campaign
from hpcbackmap.config.load import resolved_yaml
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.stages.artifact import save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.build import build_stage
from hpcbackmap.store.store import create_store

__all__ = ["FRAMES", "HELD_OUT", "make_campaign"]

FRAMES = 40
GENZPROT = {"kind": "genzprot", "rounds": 2, "redraws": 1}
LATENT = {"cgvae": {"latent": 2}, "trace": {}}
HELD_OUT = 8
SEQUENCES = {"first": "GASGVLKAGS", "second": "AGVSKLA"}


def ensemble(ladder, seed):
    """Atoms on a random compact chain that breathes along a few collective directions, [FRAMES, A, 3]."""
    rng = np.random.default_rng(seed)
    mean = np.cumsum(rng.normal(scale=0.1, size=(ladder.topology.n_atoms, 3)), axis=0)
    modes = rng.normal(scale=0.05, size=(4, *mean.shape))
    moved = mean + np.einsum("fk,kax->fax", rng.normal(size=(FRAMES, 4)), modes)
    return (moved + rng.normal(scale=0.01, size=moved.shape)).astype(np.float32)


def make_campaign(folder, ladder_specs, names, stages=None, kind="cgvae"):
    """A campaign with a store and calibrated, untrained stages (``kind``, ca-fg genzprot) as its artifacts."""
    ladders = {
        name: build_ladder(topology_from_sequence([SEQUENCES[name]]), ladder_specs)
        for name in names
    }
    campaign = Campaign(
        name="tiny",
        workdir=str(folder),
        ladder=ladder_specs,
        systems=[{"name": name, "trajectories": ["unused.xtc"]} for name in names],
        evaluate={"bootstrap": 50},
    )
    models = {
        name: {"kind": kind} | LATENT[kind] if name != "ca-fg" else GENZPROT
        for name in (stages or campaign.rungs())
    }
    chosen = {name: {"model": model | {"width": 8, "layers": 1}} for name, model in models.items()}
    campaign = Campaign.model_validate(campaign.model_dump() | {"stages": chosen})
    levels = {
        name: ladder.coarsen(ensemble(ladder, seed))
        for seed, (name, ladder) in enumerate(ladders.items())
    }
    store = create_store(
        campaign.path("frames.zarr"), ladders, dict.fromkeys(names, FRAMES),
        campaign.resolutions(), campaign.store, {}, shard_frames=FRAMES,
    )  # fmt: skip
    for name in names:
        store.system(name).write_shard(0, levels[name])
    store.mark_complete()
    for rung, config in campaign.stages.items():
        stage = build_stage(rung, config.model, list(ladders.values()), seed=1)
        system = collate([stage.describe(ladders[names[0]])])
        train = [
            torch.from_numpy(levels[names[0]][r][:-HELD_OUT]) for r in (stage.fine, stage.coarse)
        ]
        stage.calibrate(*train, system)
        save_artifact(stage, campaign.path(f"stages/{rung}/artifact"), {})
    (folder / "campaign.yaml").write_text(resolved_yaml(campaign))
    return campaign, ladders, levels
