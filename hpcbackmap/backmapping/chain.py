"""The stages in order, coarse to fine, in one process: x_k -> x_{k-1} -> ... -> x_0."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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

    def run(
        self, coarse: np.ndarray, frames: list[int], member: int | None, seed: int
    ) -> dict[str, np.ndarray]:
        """Positions at every finer resolution, float32 [F, N, 3], nm; see `run_members`."""
        return self.run_members(coarse, frames, [member], seed)[0]

    @torch.no_grad()
    def run_members(
        self, coarse: np.ndarray, frames: list[int], members: Sequence[int | None], seed: int
    ) -> list[dict[str, np.ndarray]]:
        """Of each member, positions at every finer resolution, float32 [F, N, 3], nm.

        coarse: float32 [F, B, 3]. frames: global indices, which key the noise. members: which prior samples,
        or [None] for the one most likely structure. Nothing else enters: no fine position is ever read. Members
        drawn together share what the first stage makes of ``coarse``; they are the same drawn one by one.
        """
        centre = coarse.astype(np.float64).mean(axis=1, keepdims=True)
        positions = torch.from_numpy((coarse - centre).astype(np.float32)).to(self.device)
        inputs = [positions] * len(members)
        levels = [{} for _ in members]
        for number in range(len(self.stages)):
            inputs = self._descend(number, inputs, frames, members, seed)
            for level, fine in zip(levels, inputs, strict=True):
                level[self.stages[number].fine] = (fine.cpu().numpy() + centre).astype(np.float32)
        return levels

    def _descend(self, number: int, inputs: list[Tensor], frames, members, seed) -> list[Tensor]:
        """Each member one stage further down."""
        stage, system = self.stages[number], self.systems[number]
        if members[0] is None:
            return [stage.mode(coarse, system) for coarse in inputs]
        shape = (inputs[0].shape[1], stage.noise_width)
        noises = [frame_noise(seed, stage.name, frames, member, *shape) for member in members]
        noises = [torch.from_numpy(noise).to(self.device) for noise in noises]
        if number == 0:
            return stage.samples(inputs[0], system, noises)
        pairs = zip(inputs, noises, strict=True)
        return [stage.sample(coarse, system, noise) for coarse, noise in pairs]


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
