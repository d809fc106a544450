"""The networks of the rungs, one from scratch for each, and the examples that they learn from."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from atoms_at_once import AtomsAtOnce, dense
from chains import Chain, stretch
from finer_beads import FinerBeads
from nested import ladder_of
from train_trace import optimisers

from hpcbackmap.config.campaign import GenzprotConfig, TraceConfig
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.base import Stage, System, collate
from hpcbackmap.stages.genzprot.model import Genzprot
from hpcbackmap.stages.trace.model import Trace

__all__ = ["batches", "describe", "level", "new_stage", "optimisers_of"]

RESIDUES_A_STEP = 400
RATE = 1.5e-3
"""Of AdamW; Muon's is 8 times it, as in the recipe of the trace stage."""


def new_stage(coarse: str, fine: str) -> Stage:
    """Untrained, its weights drawn by torch's generator as it stands."""
    if fine == "fg":
        if coarse == "ca":
            return Genzprot(fine, coarse, GenzprotConfig())
        return AtomsAtOnce(fine, coarse, TraceConfig(denoiser=0))
    kind = Trace if fine == "ca" else FinerBeads
    return kind(fine, coarse, TraceConfig(denoiser=0))


def optimisers_of(stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside, AdamW for the rest, for every network alike."""
    return optimisers(stage, RATE)


def rung_ladder(topology: Topology, top: int, coarse: str, fine: str) -> Ladder:
    """What a stage needs to see of a chain: a ladder that ends with ``coarse``."""
    names = {"fg": ("fg",), "ca": ("fg", "ca")}.get(fine, ("fg", "ca", fine))
    return ladder_of(topology, top, (*names, coarse))


def level(
    ladder: Ladder, levels: dict[str, np.ndarray], stage: Stage, resolution: str
) -> np.ndarray:
    """Positions of a resolution as ``stage`` has them: dense atoms, where it makes these at once."""
    if resolution == "fg" and isinstance(stage, AtomsAtOnce):
        return dense(ladder.topology, levels["fg"])
    return levels[resolution]


def describe(stage: Stage, chain: Chain, top: int) -> tuple[torch.Tensor, torch.Tensor, System]:
    """(fine [1, ...], coarse [1, B, 3], system) of a chain."""
    ladder = rung_ladder(chain.topology, top, stage.coarse, stage.fine)
    levels = ladder.coarsen(chain.atoms)
    fine, coarse = (
        torch.from_numpy(level(ladder, levels, stage, name)).float()[None]
        for name in (stage.fine, stage.coarse)
    )
    return fine, coarse, stage.describe(ladder)


def batches(
    chains: list[Chain], stage: Stage, top: int, rng: np.random.Generator
) -> Iterator[tuple]:
    """Endless; what `describe` returns, of about `RESIDUES_A_STEP`. An epoch takes a chain of every cluster."""
    clusters = defaultdict(list)
    for chain in chains:
        clusters[chain.cluster].append(chain)
    names = sorted(clusters)
    while True:
        taken, residues = [], 0
        for k in rng.permutation(len(names)):
            own = clusters[names[k]]
            part = stretch(own[rng.integers(len(own))], rng)
            taken.append(describe(stage, part, top))
            residues += part.topology.n_residues
            if residues >= RESIDUES_A_STEP:
                fine, coarse, systems = zip(*taken, strict=True)
                yield torch.cat(fine, 1), torch.cat(coarse, 1), collate(systems)
                taken, residues = [], 0
