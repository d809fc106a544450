r"""Train the shipped stage from C-alpha to heavy atoms further, on all chains of the recipe.

    HPCBACKMAP_DATA=... python benchmarks/recipes/train_heavy_atoms.py FOLDER --minutes 60 [--start ARTIFACT]

Begins with the shipped weights. A step shows chains of about 1,500 residues, each of another cluster, and every
residue counts as much; hidden units of the small networks drop out; the weights are a running mean. Leaves
the artifact FOLDER/mean; FOLDER/state.pt is what a stopped run goes on from, with the same command. Minutes are
CPU time of one core, and the learning rate follows them. The package's trainer describes all chains at every
start and knows neither dropout nor a mean; hence this script.
"""

import argparse
import json
import math
import os
import time
from collections import defaultdict
from pathlib import Path

import mdtraj
import numpy as np
import torch
from campaign import read_chains
from torch import Tensor

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.model import RIGID_SHARE, Genzprot
from hpcbackmap.stages.genzprot.system import residue_system
from hpcbackmap.stages.layers.network import MLP
from hpcbackmap.stages.noise import frame_noise

RATE, FLOOR, WARMUP = 1e-3, 0.03, 100
"""Largest learning rate, share of it that is left at the end, steps of growth."""
RESIDUES = 1500
DROPOUT = 0.1
DECAY = 0.02
MEMORY = 0.998
"""Of the running mean of the weights, a step."""
REPORT, VALIDATE = 100, 400
"""Steps."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--start", type=Path, help="Artifact to go on from; default: shipped.")
    parser.add_argument("--chains", type=int, help="At most so many, to try it.")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    keep_freed_memory()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    training = Training(load_artifact(arguments.start or shipped_artifact()), arguments)
    training.run()
    training.publish()


class Training:
    """Weights, their running mean, and where the run stands: ``step``, ``seconds`` of CPU time."""

    def __init__(self, stage: Genzprot, arguments: argparse.Namespace):
        self.stage, self.folder = stage.train(), arguments.folder
        self.limit = 60 * arguments.minutes
        for module in stage.modules():
            if isinstance(module, MLP):
                module[1].register_forward_hook(drop)
        self.clusters, self.held_out = read_all(arguments.data, arguments.folder, arguments.chains)
        self.optimiser = torch.optim.AdamW(
            stage.parameters(), RATE, weight_decay=DECAY, betas=(0.9, 0.99)
        )
        self.mean = {key: value.detach().clone() for key, value in stage.named_parameters()}
        self.step, self.seconds = 0, 0.0
        if (self.folder / "state.pt").exists():
            self._resume()

    def run(self) -> None:
        batches = self._batches()
        mark, seen = time.process_time(), []
        while self.seconds < self.limit:
            chains = next(batches)
            seen.append(self._learn(chains))
            now = time.process_time()
            self.seconds, mark = self.seconds + now - mark, now
            if self.step % REPORT == 0:
                self._say(train=float(np.mean(seen)))
                self._keep()
                seen = []
            if self.step % VALIDATE == 0:
                self._say(validation=self.validate())
                mark = time.process_time()

    def publish(self) -> None:
        self._keep()
        self._say(validation=self.validate())
        self.stage.load_state_dict(self.mean, strict=False)
        save_artifact(self.stage, self.folder / "mean", {"recipe": Path(__file__).name})

    def validate(self) -> float:
        """Nats of the torsions per residue of the mean weights, chains held out."""
        kept = {key: value.clone() for key, value in self.stage.state_dict().items()}
        self.stage.load_state_dict(self.mean, strict=False)
        self.stage.eval()
        with torch.no_grad():
            nats = [self._nats([chain], "validation", k) for k, chain in enumerate(self.held_out)]
        self.stage.load_state_dict(kept)
        self.stage.train()
        sizes = [chain[1].shape[1] for chain in self.held_out]
        return float(np.average([float(kl) for kl, _ in nats], weights=sizes))

    def _learn(self, chains: list[tuple]) -> float:
        """One step; nats per residue before it."""
        share = self.seconds / self.limit
        cosine = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimiser.param_groups:
            group["lr"] = RATE * min(1, (self.step + 1) / WARMUP) * cosine
        torch.manual_seed(self.step)
        kl, likelihood = self._nats(chains, "train", self.step)
        self.optimiser.zero_grad()
        (kl - RIGID_SHARE * likelihood).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.stage.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        memory = min(MEMORY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            for key, value in self.stage.named_parameters():
                self.mean[key].lerp_(value, 1 - memory)
        return float(kl.detach())

    def _nats(self, chains: list[tuple], key: str, number: int) -> tuple[Tensor, Tensor]:
        """KL and log-likelihood per residue of these chains together."""
        fine, coarse, systems = zip(*chains, strict=True)
        fine, coarse, system = torch.cat(fine, 1), torch.cat(coarse, 1), collate(list(systems))
        noise = frame_noise(0, key, [number], 0, coarse.shape[1], self.stage.elbo_noise)
        terms = self.stage.loss(fine, coarse, system, torch.from_numpy(noise))
        share = len(chains) / coarse.shape[1]
        return share * terms["kl"], share * terms["log_likelihood"]

    def _batches(self):
        """Endless; an epoch takes one chain of every cluster. A run that goes on skips what it has seen."""
        rng, names, number = np.random.default_rng([0, 1]), sorted(self.clusters), 0
        while True:
            taken, residues = [], 0
            for k in rng.permutation(len(names)):
                chains = self.clusters[names[k]]
                taken.append(chains[rng.integers(len(chains))])
                residues += taken[-1][1].shape[1]
                if residues >= RESIDUES:
                    if number >= self.step:
                        yield taken
                    number += 1
                    taken, residues = [], 0

    def _keep(self) -> None:
        state = {
            "stage": self.stage.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, self.folder / "state.part")
        os.replace(self.folder / "state.part", self.folder / "state.pt")

    def _resume(self) -> None:
        state = torch.load(self.folder / "state.pt")
        self.stage.load_state_dict(state["stage"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.mean, self.step, self.seconds = state["mean"], state["step"], state["seconds"]

    def _say(self, **values: float) -> None:
        record = {"step": self.step, "minutes": round(self.seconds / 60, 2)} | values
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(record) + "\n")
        print(record, flush=True)


def drop(module: torch.nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return torch.nn.functional.dropout(output, DROPOUT, torch.is_grad_enabled())


def read_all(data: Path, folder: Path, limit: int | None) -> tuple[dict, list]:
    """(fine [1, A, 3], coarse [1, R, 3], system) of training chains by cluster, and of validation chains.

    Reading them takes minutes, so FOLDER/chains.pt keeps them for the next start.
    """
    cache = folder / "chains.pt"
    if not cache.exists():
        rows = list(read_chains(data).values())
        found = [(row["split"], row["cluster"], *read(row)) for row in rows[:limit]]
        torch.save(found, cache)
    clusters, held_out = defaultdict(list), []
    for split, cluster, *chain in torch.load(cache, weights_only=False):
        if split == "train":
            clusters[cluster].append(chain)
        elif split == "val":
            held_out.append(chain)
    return clusters, held_out


def read(row: dict) -> tuple:
    frame = mdtraj.load(str(row["path"]))
    topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], str(row["path"]))
    atoms = frame.xyz[:, index]
    ladder = build_ladder(topology, ["fg", "ca"], atoms)
    levels = ladder.coarsen(atoms - atoms.mean(1, keepdims=True))
    fine, coarse = (torch.from_numpy(levels[name].astype(np.float32)) for name in ("fg", "ca"))
    return fine, coarse, residue_system(ladder, "ca")


if __name__ == "__main__":
    main()
