"""The stages in order, coarse to fine, in one process: x_k -> x_{k-1} -> ... -> x_0.

Samples of one frame form a tree: every stage draws so many for each sample of the stage before. Members are
its leaves, numbered so that the finest stage counts fastest.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.centring import about, centre_of
from hpcbackmap.stages.given import Given
from hpcbackmap.stages.noise import INDEPENDENT, Coherence, frame_noise

__all__ = ["Chain", "Chains", "Descent", "load_chain"]

Nodes = dict[int | None, Tensor]
"""Samples of one stage by their number among those of a frame; None is the mode."""


class Chain:
    """Stages bound to one molecule and one device.

    stages: coarse to fine, ``stages[0].coarse`` is the input resolution. draws: samples that each stage
    draws for every sample that it is given; default: the first draws all members, the others one each.
    Raises InputError if a stage does not fit the ladder.
    """

    def __init__(
        self,
        stages: list[Stage[Any]],
        ladder: Ladder,
        device: torch.device,
        draws: Sequence[int] | None = None,
    ):
        self.stages = [stage.to(device).eval() for stage in stages]
        self.systems = [collate([stage.describe(ladder)]).to(device) for stage in stages]
        self.device = device
        later = list(draws[1:] if draws else [1] * (len(stages) - 1))
        self._leaves = [math.prod(later[number:]) for number in range(len(stages))]

    def run_members(
        self,
        coarse: np.ndarray,
        frames: list[int],
        members: Sequence[int | None],
        seed: int,
        given: Given | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """`run` of one batch; see `Descent` for the arguments."""
        return self.run(Descent(coarse, frames, members, seed, given=given))

    def run(self, descent: "Descent") -> list[dict[str, np.ndarray]]:
        """Of each member, positions at every finer resolution, float32 [F, N, 3], nm.

        No fine position is ever read. Members drawn together share what a stage makes of its input; they are
        the same drawn one by one. What a stage leaves without numbers is NaN from there on.
        """
        for number in range(len(descent.finished), len(self.stages)):
            self.step(number, descent)
        return self.levels(descent)

    def run_all(
        self, descents: Iterable["Descent"]
    ) -> Iterator[tuple["Descent", list[dict[str, np.ndarray]]]]:
        """Each with its `run`; none is kept."""
        return ((descent, self.run(descent)) for descent in descents)

    @torch.no_grad()
    def step(self, number: int, descent: "Descent") -> None:
        """Draw the samples of stage ``number`` that the members need, given those of the stage before."""
        stage, system = self.stages[number], self.systems[number]
        made: Nodes = {}
        given = descent.given_to(stage, self.device)
        held = () if given is None else (given,)
        for parent, positions in descent.nodes.items():
            coarse = positions.to(self.device)
            children, noises = self._children(stage, number, parent, descent, coarse.shape[1])
            drawn = stage.draw(coarse, system, noises, *held)
            made |= dict(zip(children, drawn.structures, strict=True))
            if drawn.set_aside is not None:
                descent.set_aside = descent.set_aside | drawn.set_aside
        descent.finished.append(
            {
                key: (fine.cpu().numpy() + descent.centre).astype(np.float32)
                for key, fine in made.items()
            }
        )
        descent.nodes = {key: _with_numbers(fine) for key, fine in made.items()}

    def _children(
        self, stage: Stage[Any], number: int, parent: int | None, descent: "Descent", beads: int
    ) -> tuple[list[int | None], list[Tensor] | None]:
        """The samples of stage ``number`` that hang on sample ``parent``, and their noise; of the mode None."""
        if parent is None:
            return [None], None
        nodes = {
            self._node(number, member)
            for member in descent.members
            if self._node(number - 1, member) == parent
        }
        children = sorted(node for node in nodes if node is not None)
        noises = [
            torch.from_numpy(descent.noise(stage, child, beads)).to(self.device)
            for child in children
        ]
        return [*children], noises

    def levels(self, descent: "Descent") -> list[dict[str, np.ndarray]]:
        """Of each member, positions at the resolutions that are finished."""
        found = []
        for member in descent.members:
            level, lost = {}, np.zeros(len(descent.frames), dtype=bool)
            for number, finished in enumerate(descent.finished):
                fine = finished[self._node(number, member)]
                lost |= ~np.isfinite(fine).all(axis=(1, 2))
                level[self.stages[number].fine] = (
                    np.where(lost[:, None, None], np.float32(np.nan), fine) if lost.any() else fine
                )
            found.append(level)
        return found

    def _node(self, number: int, member: int | None) -> int | None:
        """Which sample of stage ``number`` a member comes from; stage -1 is the input frame."""
        if member is None:
            return None
        return 0 if number < 0 else member // self._leaves[number]


class Chains(Mapping[str, Chain]):
    """The chain of each system by name, made when it is asked for first: a rank meets few of many systems.

    ladders: by system. Raises InputError at once for a molecule that a stage cannot treat.
    """

    def __init__(
        self,
        stages: list[Stage[Any]],
        ladders: Callable[[str], Ladder],
        names: Iterable[str],
        device: torch.device,
        draws: Sequence[int] | None = None,
    ):
        self.device = device
        self._made: dict[str, Chain | None] = dict.fromkeys(names)
        self._make: Callable[[str], Chain] = lambda name: Chain(
            stages, ladders(name), device, draws
        )
        for name in self._made:
            for stage in stages:
                try:
                    stage.require(ladders(name))
                except InputError as error:
                    raise InputError(f"system {name}: {error}") from None

    def __getitem__(self, name: str) -> Chain:
        chain = self._made[name]
        if chain is None:
            chain = self._made[name] = self._make(name)
        return chain

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


class Descent:
    """A batch of frames on its way down the ladder.

    coarse: float32 [F, B, 3], nm. frames: global indices, which key the noise. members: which prior samples,
    or [None] for the one most likely structure. attempt: another number draws other samples. given: what the
    input holds beside ``coarse`` of these frames, for the stage to heavy atoms. coherence: of the noise.
    nodes: samples of the last finished stage about the frames' centres. finished: samples of every stage so
    far, float32 [F, N, 3], nm. set_aside: frames that are made without the reference, [F].
    """

    def __init__(
        self,
        coarse: np.ndarray,
        frames: list[int],
        members: Sequence[int | None],
        seed: int,
        attempt: int = 0,
        given: Given | None = None,
        coherence: Coherence = INDEPENDENT,
    ):
        self.given = given
        self.coarse, self.frames, self.members = coarse, frames, list(members)
        self.set_aside = np.zeros(len(frames), dtype=bool)
        self.seed, self.attempt, self.coherence = seed, attempt, coherence
        self.centre = centre_of(coarse)
        positions = torch.from_numpy(about(coarse, self.centre))
        self.nodes: Nodes = {None if self.members[0] is None else 0: positions}
        self.finished: list[dict[int | None, np.ndarray]] = []

    def again(self, attempt: int) -> "Descent":
        """The same batch from the start, for another draw."""
        same = (self.coarse, self.frames, self.members, self.seed)
        return Descent(*same, attempt, self.given, self.coherence)

    def given_to(self, stage: Stage[Any], device: torch.device) -> Given | None:
        """What ``stage`` is to keep and to reproduce, about the frames' centres."""
        if self.given is None or not stage.takes_given:
            return None
        return self.given.moved(-self.centre).to(device)

    def noise(self, stage: Stage[Any], sample: int, beads: int) -> np.ndarray:
        """Of one sample of a stage, float32 [F, beads, width]."""
        stream = f"{stage.name}/attempt {self.attempt}" if self.attempt else stage.name
        shape = (beads, stage.noise_width)
        return frame_noise(self.seed, stream, self.frames, sample, *shape, self.coherence)


def _with_numbers(positions: Tensor) -> Tensor:
    """Frames that are not finite replaced by one that is, so that the next stage can be run."""
    good = torch.isfinite(positions).all(-1).all(-1)
    if good.all():
        return positions
    filler = positions[good][:1] if good.any() else torch.zeros_like(positions[:1])
    return torch.where(good[:, None, None], positions, filler)


def load_chain(folders: dict[str, Path], rungs: list[str]) -> list[Stage[Any]]:
    """Trained stages of the rungs, in their order.

    Raises InputError naming a rung without an artifact that can be read, or an artifact of another rung.
    """
    stages = []
    for rung in rungs:
        try:
            stage = load_artifact(folders[rung])
        except InputError as error:
            raise InputError(
                f"stage {rung}: {error}; train the stage, or give another stages.{rung}.artifact"
            ) from None
        try:
            stages.append(stage.at_rung(rung))
        except InputError as error:
            raise InputError(f"{folders[rung]}: {error}") from None
    return stages
