r"""Train the denoiser of the shipped trace stage, whose other weights stay as they are.

    export HPCBACKMAP_DATA=...
    python benchmarks/recipes/train_denoiser.py FOLDER --minutes 48 [--start ARTIFACT]

Chains, cuts and beads are those of `train_trace`. Every example is seen through two noises, of widths drawn
evenly by logarithm, with secondary structure told for all of its residues, for some, or (mostly) for none.
Minutes are of one thread's CPU time; the rate of AdamW falls over the last 40 % of them, and a moving
average of the weights is what is kept. FOLDER/denoiser.pt is written every minute and the same command goes
on from it; at the end FOLDER/beads-ca is the artifact.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from by_the_minute import Run
from torch import Tensor
from train_trace import batches, load_chains

from hpcbackmap.config.campaign import TraceConfig
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact, read_artifact_config, save_artifact
from hpcbackmap.stages.trace.denoiser import Denoiser
from hpcbackmap.stages.trace.model import Trace
from hpcbackmap.stages.trace.system import STRUCTURES, TraceSystem

RESIDUES_A_STEP, NOISES = 800, 2
"""Residues of a batch, about, and through how many noises it is seen."""
RATE, DECAY = 2e-3, 0.01
TOLD = (0.7, 0.15, 0.15)
"""How often secondary structure is told for no residue, for some, for all."""
HELIX = {2: (0.55, 0.05), 3: (0.53, 0.05), 4: (0.64, 0.06)}
STRAND = {2: (0.67, 0.06), 3: (0.99, 0.09), 4: (1.24, 0.11)}
"""Distances (nm) of C-alpha atoms so many residues apart, and how far they may be off: P-SEA's (Labesse et al.
1997)."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=48.0)
    parser.add_argument("--start", type=Path, help="Artifact; default: the shipped one.")
    parser.add_argument("--chains", type=int, help="At most so many, to try it.")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    start = arguments.start or shipped_artifact("beads-ca")
    chains = load_chains(arguments.folder / "chains.npz", arguments.chains)
    stage, card = with_denoiser(start), read_artifact_config(start)["card"]
    network, path = stage.denoiser, arguments.folder / "denoiser.pt"
    adam = torch.optim.AdamW(network.parameters(), RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    run = Run(network, [adam], path, 60 * arguments.minutes)
    rng = np.random.default_rng([1, run.step])
    stream = batches(chains, rng, RESIDUES_A_STEP)
    told = run.train(stream, lambda batch: loss_of(network, batch, rng))
    network.half()  # as it is kept, for an artifact below 6 MB
    told["chains"] = len(chains)
    save_artifact(stage, arguments.folder / "beads-ca", card | {"denoiser": told})


def with_denoiser(start: Path) -> Trace:
    """The stage of an artifact with a denoiser yet to be loaded."""
    old = load_artifact(start)
    settings = {key: value for key, value in old.config.model_dump().items() if key != "denoiser"}
    stage = Trace(old.fine, old.coarse, TraceConfig.model_validate(settings))
    stage.network.load_state_dict(old.network.state_dict())
    return stage


def loss_of(network: Denoiser, batch: tuple, rng: np.random.Generator) -> dict[str, Tensor]:
    fine, coarse, system = batch
    tell(fine, system, rng)
    fine, coarse = (each.repeat(NOISES, 1, 1) for each in (fine, coarse))
    noise = torch.from_numpy(rng.standard_normal((*fine.shape[:2], 4), dtype=np.float32))
    return {"loss": network.loss(fine, noise, coarse, system)}


def tell(fine: Tensor, system: TraceSystem, rng: np.random.Generator) -> None:
    """Put into ``system`` the secondary structure of traces [1, N, 3], as much of it as is told."""
    molecule, kept = system.fine_system.numpy(), np.zeros(fine.shape[1], dtype=bool)
    found = states(fine[0].numpy(), np.stack([molecule, system.stretch.numpy()], 1))
    for number in range(system.n_systems):
        own = molecule == number
        how = rng.choice(len(TOLD), p=TOLD)
        kept[own] = rng.random(own.sum()) < (0.0, rng.random(), 1.0)[how]
    system.structure = torch.from_numpy(np.where(kept, found, STRUCTURES.index("?")))


def states(trace: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Which of `STRUCTURES` each residue of a trace [N, 3] has, by distances.

    stretch [N, 2]: what residues of one element have in common.
    """
    found = np.full(len(trace), STRUCTURES.index("C"))
    for letter, criteria, ends in (("E", STRAND, 1), ("H", HELIX, 0)):
        fits = np.ones(max(len(trace) - 4, 0), dtype=bool)
        for apart, (distance, off) in criteria.items():
            gap = np.linalg.norm(trace[apart:] - trace[:-apart], axis=1)[: len(fits)]
            fits &= np.abs(gap - distance) < off
        fits &= (stretch[: len(fits)] == stretch[4:]).all(1)
        if ends:  # strands of five residues in a row at least
            fits = fits[:-1] & fits[1:]
        for start in np.flatnonzero(fits):
            found[start + 1 : start + 4 + ends] = STRUCTURES.index(letter)
    return found


if __name__ == "__main__":
    main()
