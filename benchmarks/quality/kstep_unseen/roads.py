"""What a trained ladder answers for the beads of a chain, and how likely it finds the truth."""

import time
from typing import NamedTuple

import numpy as np
import torch
from chains import Chain
from nested import ROADS, ladder_of
from rungs import describe

from hpcbackmap.stages.base import Stage
from hpcbackmap.stages.ladder_volume import importance_bound, ladder_log_volume
from hpcbackmap.stages.noise import frame_noise

__all__ = ["Answers", "answers_of", "nats_of"]

DRAWS = 8
"""Draws behind a likelihood."""


class Answers(NamedTuple):
    """members [1, M, A, 3] and one [1, 1, A, 3]: heavy atoms, nm. seconds: CPU time of a member."""

    members: np.ndarray
    one: np.ndarray
    seconds: float


@torch.no_grad()
def answers_of(stages: list[Stage], chain: Chain, top: int, number: int, members: int) -> Answers:
    """From the top beads alone; ``stages`` from the top down, ``number``: of the chain, for its noise."""
    described = [describe(stage, chain, top) for stage in stages]
    beads = described[0][1]
    systems = [system for *_, system in described]
    began, drawn = time.process_time(), []
    for member in range(members):
        x = beads
        for stage, system in zip(stages, systems, strict=True):
            noise = frame_noise(0, stage.name, [number], member, x.shape[1], stage.noise_width)
            x = stage.samples(x, system, [torch.from_numpy(noise)])[0]
        drawn.append(x)
    seconds = (time.process_time() - began) / members
    one = beads
    for stage, system in zip(stages, systems, strict=True):
        one = stage.mode(one, system)
    return Answers(torch.stack(drawn, 1).numpy(), one[:, None].numpy(), seconds)


@torch.no_grad()
def nats_of(stages: list[Stage], chain: Chain, road: str, number: int) -> dict:
    """Nats per residue of the true atoms given the top beads, on one footing: ``elbo``, ``iwae``, ``rungs``.

    Each rung's density is that of the truth's level given the truth's level above, on its fibre; the volume
    of the ladder makes their sum a density of atoms on the fibre of the top beads.
    """
    top, found = int(road.split("-")[0]), {}
    for stage in stages:
        fine, coarse, system = describe(stage, chain, top)
        width = stage.elbo_noise
        weights = []
        for draw in range(DRAWS):
            noise = frame_noise(1, stage.name, [number], draw, coarse.shape[1], width)
            weights.append(stage.log_weight(fine, coarse, system, torch.from_numpy(noise)).sum())
        every = torch.stack(weights).double()
        found[stage.name] = [float(every.mean()), float(importance_bound(every))]
    volume = ladder_log_volume(ladder_of(chain.topology, top, ROADS[road])).sum()
    n = chain.topology.n_residues
    elbo, iwae = (sum(nats[k] for nats in found.values()) - volume for k in (0, 1))
    rungs = {name: nats[0] / n for name, nats in found.items()}
    return {"elbo": elbo / n, "iwae": iwae / n, "rungs": rungs, "volume": volume / n}
