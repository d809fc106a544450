r"""Train one trace network on beads of 4 and of 10 residues in turn.

    HPCBACKMAP_DATA=... python benchmarks/recipes/train_transferable.py FOLDER --minutes 40 \
        [--start ARTIFACT --rate 1e-3]

Leaves the artifacts FOLDER/ucgr4-ca and FOLDER/ucgr10-ca, which share their weights. The package's trainer
learns one rung at a time; two bead sizes in one network are this script's.
"""

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path

import mdtraj
import numpy as np
import torch

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.topology import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.trace.model import Trace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "quality" / "beads"))
from campaign import read_chains
from ensembles import data_folder

SIZES = (4, 10)
MODEL = TraceConfig(width=96, layers=2, latent=8, rounds=3, neighbours=12)
RESIDUES = 350
"""Residues of a batch, about."""
WARMUP, FLOOR = 200, 0.03


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--start", type=Path, help="Artifact to go on from.")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="Largest learning rate.")
    parser.add_argument("--chains", type=int, help="At most so many, to try it.")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    stages = {size: Trace("ca", f"ucgr{size}", MODEL) for size in SIZES}
    stage = stages[SIZES[0]]
    sets = {size: read_sets(stages[size], size, arguments.chains) for size in SIZES}
    if arguments.start:
        stage.load_state_dict(load_artifact(arguments.start).state_dict())
    else:
        calibrate(stage, sets)
    train(stage, sets, arguments.minutes, arguments.rate)
    for other in stages.values():
        other.load_state_dict(stage.state_dict())
        save_artifact(other, arguments.folder / other.name, {"recipe": Path(__file__).name})


def read_sets(stage: Trace, size: int, limit: int | None) -> dict[str, list[tuple]]:
    """(fine [1, N, 3], coarse [1, B, 3], system) of the training chains of every cluster."""
    clusters = defaultdict(list)
    rows = [row for row in read_chains(data_folder()).values() if row["split"] == "train"]
    for row in rows[:limit]:
        frame = mdtraj.load(str(row["path"]))
        topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], str(row["path"]))
        atoms = frame.xyz[:, index]
        ladder = build_ladder(topology, ["fg", "ca", f"ucg:/{size}"], atoms)
        levels = ladder.coarsen(atoms - atoms.mean(1, keepdims=True))
        fine, coarse = (
            torch.from_numpy(levels[name].astype(np.float32)) for name in (stage.fine, stage.coarse)
        )
        clusters[row["cluster"]].append((fine, coarse, stage.describe(ladder)))
    return clusters


def joined(chains: list[tuple]) -> tuple:
    fine, coarse, systems = zip(*chains, strict=True)
    return torch.cat(fine, 1), torch.cat(coarse, 1), collate(list(systems))


def calibrate(stage: Trace, sets: dict) -> None:
    """Length scales between those of the two bead sizes."""
    found = []
    for clusters in sets.values():
        stage.calibrate(*joined([chains[0] for chains in list(clusters.values())[:100]]))
        found.append((float(stage.network.unit), float(stage.network.scale)))
    stage.network.unit.fill_(np.mean([unit for unit, _ in found]))
    stage.network.scale.fill_(np.mean([scale for _, scale in found]))


def batches(clusters: dict, rng: np.random.Generator):
    """Endless; an epoch takes one chain of every cluster."""
    while True:
        taken, residues = [], 0
        for name in rng.permutation(sorted(clusters)):
            taken.append(clusters[name][rng.integers(len(clusters[name]))])
            residues += taken[-1][0].shape[1]
            if residues >= RESIDUES:
                yield taken
                taken, residues = [], 0


def train(stage: Trace, sets: dict, minutes: float, rate: float) -> None:
    rng = np.random.default_rng(0)
    streams = [batches(clusters, rng) for clusters in sets.values()]
    optimiser = torch.optim.AdamW(stage.parameters(), rate, weight_decay=0.01, betas=(0.9, 0.99))
    begun, step = time.monotonic(), 0
    stage.train()
    while (share := (time.monotonic() - begun) / (60 * minutes)) < 1:
        cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + np.cos(np.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARMUP) * cosine
        fine, coarse, system = joined(next(streams[step % len(streams)]))
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(1, coarse.shape[1], stage.noise_width, generator=generator)
        stage.at_step(step)
        terms = stage.loss(fine, coarse, system, noise)
        optimiser.zero_grad()
        terms["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(stage.parameters(), 1.0)
        if torch.isfinite(norm):
            optimiser.step()
        step += 1
        if step % 100 == 0:
            print(
                step, " ".join(f"{k} {float(v.detach()):.3f}" for k, v in terms.items()), flush=True
            )


if __name__ == "__main__":
    main()
