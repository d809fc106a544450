r"""Train the shipped trace stage: one network for beads of 2 to 25 residues, even, uneven, of any definition.

    export HPCBACKMAP_DATA=...
    python benchmarks/recipes/train_trace.py FOLDER --minutes 35 [--start ARTIFACT]

Every example is a chain of the training split (`campaign.read_chains`), cut at random into runs of residues;
beads are means of C-alpha atoms, of heavy atoms, or mass centres. An epoch takes one chain of every cluster.
Muon (Jordan et al. 2024) for matrices, AdamW for the rest. Minutes are of one thread's CPU time; the rate
falls to a fiftieth over the last 40 % of them, and a moving average of the weights is what is kept.
FOLDER/checkpoint.pt is written every two minutes and the same command goes on from it; FOLDER/chains.npz
holds the chains once they are read. At the end FOLDER/beads-ca is the artifact, with the denoiser of the
ARTIFACT that it began with as it was: `train_denoiser` trains that. The package's trainer learns one rung at a
time; random rungs are this script's.
"""

import argparse
import gzip
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from by_the_minute import Run
from campaign import read_chains

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.protein.residues import ELEMENT_MASS
from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import DEFINITIONS, build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.stages.artifact import load_artifact, read_artifact_config, save_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.trace.model import Trace
from hpcbackmap.stages.trace.system import trace_system

SIZES = (2, 25)
"""Residues of a bead, on the average of a chain: drawn evenly by logarithm."""
UNEVEN = (0.35, 0.7)
"""Uneven runs are up to so much shorter or longer than their mean; even ones are half of all."""
SHARES = (0.6, 0.2, 0.2)
"""How often a bead is which of the `DEFINITIONS`."""
RESIDUES_A_STEP, LONGEST = 400, 300
"""Residues of a batch, about, and of a chain at most; a longer one is cut at random."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--start", type=Path, help="Artifact to go on from.")
    parser.add_argument(
        "--rate", type=float, default=1.5e-3, help="Of AdamW; Muon's is 8 times it."
    )
    parser.add_argument("--chains", type=int, help="At most so many, to try it.")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    stage, card = Trace("ca", "beads", TraceConfig(denoiser=0)), {}
    if arguments.start:
        stage, card = load_artifact(arguments.start), read_artifact_config(arguments.start)["card"]
    chains = load_chains(arguments.folder / "chains.npz", arguments.chains)
    denoiser, stage.denoiser = stage.denoiser, None
    path, seconds = arguments.folder / "checkpoint.pt", 60 * arguments.minutes
    run = Run(stage, optimisers(stage, arguments.rate), path, seconds)
    rng = np.random.default_rng([0, run.step])
    told = run.train(batches(chains, rng), lambda batch: loss_of(stage, batch, run.step, rng))
    stage.denoiser = denoiser and denoiser.half()  # so the artifact stays below 6 MB
    told["chains"] = len(chains)
    save_artifact(stage, arguments.folder / "beads-ca", card | {"network": told})


def loss_of(stage: Trace, batch: tuple, step: int, rng: np.random.Generator) -> dict:
    fine, coarse, system = batch
    shape = (1, coarse.shape[1], stage.elbo_noise)
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    stage.at_step(step)
    return stage.loss(fine, coarse, system, noise)


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonal matrix nearest to a momentum (Jordan et al. 2024), in single precision.

    torch's own works in bfloat16, which a CPU without it emulates at a seventh of the speed.
    """

    MOMENTUM, DECAY, TURNS = 0.95, 0.01, 4
    QUINTIC = (3.4445, -4.7750, 2.0315)

    def __init__(self, matrices: list[torch.nn.Parameter], rate: float):
        super().__init__(matrices, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for (rows, columns), matrices in alike.items():
                steps = self._orthogonal(torch.stack([self._momentum(each) for each in matrices]))
                far = group["lr"] * max(1, rows / columns) ** 0.5
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * self.DECAY).sub_(step, alpha=far)

    def _momentum(self, matrix: torch.nn.Parameter) -> torch.Tensor:
        """Nesterov's."""
        kept = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        kept.lerp_(matrix.grad, 1 - self.MOMENTUM)
        return torch.lerp(matrix.grad, kept, self.MOMENTUM)

    def _orthogonal(self, matrices: torch.Tensor) -> torch.Tensor:
        """Of matrices [M, rows, columns], by Newton and Schulz's iteration of the fifth order."""
        a, b, c = self.QUINTIC
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.mT if tall else matrices
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
        for _ in range(self.TURNS):
            square = x @ x.mT
            x = a * x + (b * square + c * square @ square) @ x
        return x.mT if tall else x


def optimisers(stage: Trace, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside, AdamW for vectors, embeddings and what gives positions."""
    matrices, others = [], []
    for name, parameter in stage.named_parameters():
        outside = any(part in name for part in ("embed", "move.2", "cis", "log_"))
        (others if parameter.ndim != 2 or outside else matrices).append(parameter)
    return [
        Muon(matrices, 8 * rate),
        torch.optim.AdamW(others, rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def batches(
    chains: list[dict], rng: np.random.Generator, size: int = RESIDUES_A_STEP
) -> Iterator[tuple]:
    """Endless; (fine [1, N, 3], coarse [1, B, 3], system) of about ``size`` residues together."""
    clusters = defaultdict(list)
    for chain in chains:
        clusters[chain["cluster"]].append(chain)
    names = sorted(clusters)
    while True:
        taken, residues = [], 0
        for name in rng.permutation(names):
            taken.append(example(clusters[name][rng.integers(len(clusters[name]))], rng))
            residues += taken[-1][0].shape[1]
            if residues >= size:
                fine, coarse, systems = zip(*taken, strict=True)
                yield torch.cat(fine, 1), torch.cat(coarse, 1), collate(systems)
                taken, residues = [], 0


def example(chain: dict, rng: np.random.Generator) -> tuple:
    """A chain, or a stretch of it, in beads that are drawn."""
    n = min(LONGEST, len(chain["ca"]))
    begin = int(rng.integers(len(chain["ca"]) - n + 1))
    part = {
        key: chain[key][begin : begin + n] for key in ("ca", "atoms", "mass", "count", "weight")
    }
    mean = min(float(np.exp(rng.uniform(*np.log(SIZES)))), n / 4)
    lengths = even(n, mean) if rng.random() < 0.5 else uneven(n, mean, rng)
    of = str(rng.choice(DEFINITIONS, p=SHARES))
    first = np.cumsum(lengths) - lengths
    weight = {"ca": np.ones(n), "atoms": part["count"], "mass": part["weight"]}[of][:, None]
    beads = np.add.reduceat(part[of] * weight, first) / np.add.reduceat(weight, first)
    topology = topology_from_sequence([chain["sequence"][begin : begin + n]])
    ladder = build_ladder(topology, ["fg", "ca", f"ucg:{','.join(map(str, lengths))}:{of}"])
    system = trace_system(ladder, "ca", ladder.resolutions[2])
    fine, coarse = (torch.from_numpy(x).float()[None] for x in (part["ca"], beads))
    return fine, coarse, system


def even(n: int, mean: float) -> np.ndarray:
    count = max(3, round(n / max(2, round(mean))))
    return np.bincount(np.arange(n) * count // n)


def uneven(n: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    spread, lengths = rng.choice(UNEVEN), []
    while sum(lengths) < n:
        lengths.append(max(1, round(mean * (1 + spread * rng.uniform(-1, 1)))))
    lengths[-1] -= sum(lengths) - n
    return rng.permutation(lengths) if len(lengths) > 2 else even(n, mean)


def load_chains(cache: Path, limit: int | None) -> list[dict]:
    """Training chains: cluster, sequence, per residue ``ca``, ``atoms`` and ``mass`` centres, nm."""
    if not cache.exists():
        rows = read_chains(Path(os.environ["HPCBACKMAP_DATA"]))
        rows = [row for row in rows.values() if row["split"] == "train"][:limit]
        tables = [read_centres(row["path"]) for row in rows]
        fields = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}
        ends = np.cumsum([len(table["ca"]) for table in tables])
        clusters = np.array([row["cluster"] for row in rows])
        sequences = np.array([row["sequence"] for row in rows])
        np.savez(cache, ends=ends, clusters=clusters, sequences=sequences, **fields)
    kept = dict(np.load(cache))
    named = zip(kept.pop("clusters"), kept.pop("sequences"), strict=True)
    bounds = np.r_[0, kept.pop("ends")]
    return [
        {"cluster": str(cluster), "sequence": str(sequence)}
        | {key: value[bounds[i] : bounds[i + 1]] for key, value in kept.items()}
        for i, (cluster, sequence) in enumerate(named)
    ][:limit]


def read_centres(path: Path) -> dict[str, np.ndarray]:
    """C-alpha atoms, means and mass centres of heavy atoms of each residue, float64 [R, 3], nm."""
    residues: dict[str, list] = {}
    with gzip.open(path, "rt") as file:
        for line in file:
            if line.startswith("ATOM"):
                place = [float(line[at : at + 8]) / 10 for at in (30, 38, 46)]
                residues.setdefault(line[21:27], []).append((line[12:16].strip(), place))
    found = defaultdict(list)
    for atoms in residues.values():
        names, places = zip(*atoms, strict=True)
        places, masses = np.array(places), np.array([ELEMENT_MASS[name[0]] for name in names])
        found["ca"].append(places[names.index("CA")])
        found["atoms"].append(places.mean(0))
        found["mass"].append(masses @ places / masses.sum())
        found["count"].append(len(names))
        found["weight"].append(masses.sum())
    middle = np.mean(found["ca"], 0)
    table = {key: np.array(value, dtype=np.float64) for key, value in found.items()}
    return table | {key: table[key] - middle for key in ("ca", "atoms", "mass")}


if __name__ == "__main__":
    main()
