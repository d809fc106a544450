"""The stages in order, coarse to fine, in one process: x_k -> x_{k-1} -> ... -> x_0."""

from pathlib import Path

import numpy as np
import torch

from hpcbackmap.errors import InputError
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.noise import frame_noise

__all__ = ["Chain", "load_chain"]


class Chain:
    """Stages bound to one molecule and one device.

    stages: coarse to fine, ``stages[0].coarse`` is the input resolution. Raises InputError if a stage does
    not fit the ladder.
    """

    def __init__(self, stages: list[Stage], ladder: Ladder, device: torch.device):
        self.stages = [stage.to(device).eval() for stage in stages]
        self.systems = [collate([stage.describe(ladder)]).to(device) for stage in stages]
        self.device = device

    @torch.no_grad()
    def run(
        self, coarse: np.ndarray, frames: list[int], member: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """Positions at every finer resolution, float32 [F, N, 3], nm.

        coarse: float32 [F, B, 3]. frames: global indices, which key the noise. member: which prior sample,
        or None for the one most likely structure. Nothing else enters: no fine position is ever read.
        """
        centre = coarse.astype(np.float64).mean(axis=1, keepdims=True)
        positions = torch.from_numpy((coarse - centre).astype(np.float32)).to(self.device)
        levels = {}
        for stage, system in zip(self.stages, self.systems, strict=True):
            if member is None:
                positions = stage.mode(positions, system)
            else:
                shape = (positions.shape[1], stage.noise_width)
                noise = frame_noise(seed, stage.name, frames, member, *shape)
                positions = stage.sample(positions, system, torch.from_numpy(noise).to(self.device))
            levels[stage.fine] = (positions.cpu().numpy() + centre).astype(np.float32)
        return levels


def load_chain(folders: dict[str, Path], rungs: list[str]) -> list[Stage]:
    """Trained stages, coarse to fine. ``rungs`` are stage names, fine to coarse.

    Raises InputError naming a rung without an artifact, or an artifact of another rung.
    """
    stages = []
    for rung in reversed(rungs):
        stage = load_artifact(folders[rung])
        if stage.name != rung:
            raise InputError(f"{folders[rung]}: holds stage {stage.name}, the ladder needs {rung}")
        stages.append(stage)
    return stages
