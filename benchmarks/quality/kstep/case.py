"""One protein at one bead count: its ladders, what they are trained on, and the frames they answer for."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from ladders import MEMBERS, SEED, Protein, make_campaign, write_campaign
from training import train_in_process

from hpcbackmap.backmapping.chain import Chain
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.evaluation.reading import read_frames
from hpcbackmap.ingest.ingest import ingest
from hpcbackmap.runtime.mpi import get_comm
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.store.split import split_frames
from hpcbackmap.store.store import open_store

__all__ = ["Budget", "Case", "Rung"]


@dataclass(frozen=True)
class Budget:
    """seconds: CPU seconds of training per ladder. frames: held-out frames judged at most. energy: also
    energies after relaxation, which take longest.
    """

    data: Path
    folder: Path
    seconds: float
    frames: int
    energy: bool = True


@dataclass(frozen=True)
class Rung:
    """A trained stage: where its artifact is and what it cost (see `training`)."""

    name: str
    artifact: str
    cost: dict


class Case:
    """protein at ``beads`` beads. Frames are numbers in the only system of a store."""

    def __init__(self, protein: Protein, beads: int, budget: Budget):
        self.protein, self.beads, self.budget = protein, beads, budget

    def campaign(self, steps: int, shipped: bool = False) -> Campaign:
        """The ladder's campaign with its frames ingested; stages untrained."""
        name = f"{self.beads}-{steps}" + ("-shipped" if shipped else "")
        folder = self.budget.folder / self.protein.name / name
        campaign = make_campaign(
            self.protein, self.budget.data, folder, self.beads, steps, self.budget.seconds, shipped
        )
        write_campaign(campaign)
        ingest(campaign, get_comm())
        return campaign

    @cached_property
    def store(self):
        """The store of the two-step ladder, which holds heavy atoms, C-alpha atoms and beads."""
        return open_store(str(self.campaign(2).path("frames.zarr")))

    @property
    def ladder(self):
        return self.store.system(self.protein.name).ladder

    @property
    def coarsest(self) -> str:
        return self.ladder.resolutions[-1]

    @cached_property
    def ranges(self) -> dict:
        return split_frames(self.store, self.campaign(2).split)

    @cached_property
    def frames(self) -> np.ndarray:
        """Evenly spaced held-out frames [F]."""
        held = np.concatenate([np.arange(item.start, item.stop) for item in self.ranges["test"]])
        count = min(len(held), self.budget.frames)
        return held[np.linspace(0, len(held) - 1, count).round().astype(int)]

    def read(self, resolution: str, frames: np.ndarray | None = None) -> np.ndarray:
        """Positions [F, N, 3], nm, of the judged frames unless others are named."""
        chosen = self.frames if frames is None else frames
        return read_frames(self.store, self.protein.name, resolution, chosen)

    @cached_property
    def training_frames(self) -> np.ndarray:
        return np.concatenate([np.arange(item.start, item.stop) for item in self.ranges["train"]])

    @cached_property
    def training_blocks(self) -> np.ndarray | None:
        """Path of each training frame, or None where there is one path only."""
        sources = self.store.system(self.protein.name).sources
        if len(sources) == 1:
            return None
        starts = np.array([start for _, start, _ in sources])
        return np.searchsorted(starts, self.training_frames, side="right")

    def train(self, steps: int, shipped: bool = False) -> tuple[Campaign, list[Rung]]:
        """The campaign with its stages given as artifacts, and these, fine to coarse.

        shipped: the heavy-atom stage begins with the shipped weights; the others are those of the same ladder
        from scratch.
        """
        campaign = self.campaign(steps, shipped)
        if shipped:
            fine = self._rung(campaign, f"{steps}-shipped", campaign.rungs()[0])
            rungs = [fine, *self.train(steps)[1][1:]]
        else:
            rungs = [self._rung(campaign, str(steps), name) for name in campaign.rungs()]
        stages = {
            rung.name: campaign.stages[rung.name].model_copy(update={"artifact": rung.artifact})
            for rung in rungs
        }
        return campaign.model_copy(update={"stages": stages}), rungs

    def _rung(self, campaign: Campaign, ladder: str, name: str) -> Rung:
        """Train a stage, or take it from the ladder of another bead count that has the same one.

        Only the coarsest stage of a ladder sees N beads.
        """
        shared = self.budget.folder / self.protein.name / "shared" / f"{ladder}-{name}.json"
        if shared.exists():
            return Rung(**json.loads(shared.read_text()))
        cost = train_in_process(campaign.path("campaign.yaml"), name)
        rung = Rung(name, str(campaign.path(f"stages/{name}/artifact")), cost)
        if name != campaign.rungs()[-1]:
            shared.parent.mkdir(exist_ok=True)
            shared.write_text(json.dumps(rung.__dict__))
        return rung

    def members(
        self, campaign: Campaign, one: bool = False, count: int = MEMBERS
    ) -> dict[str, np.ndarray]:
        """Prior samples for the judged frames at every resolution, [F, count, N, 3]; one: the mode."""
        ladder = open_store(str(campaign.path("frames.zarr"))).system(self.protein.name).ladder
        folders = [campaign.stages[name].artifact for name in reversed(campaign.rungs())]
        return self.draw(folders, ladder, self.read(self.coarsest)[:, None], one, count)

    def draw(
        self,
        artifacts: list[str],
        ladder,
        coarse: np.ndarray,
        one: bool = False,
        count: int = MEMBERS,
    ) -> dict[str, np.ndarray]:
        """Prior samples of stages (coarse to fine) for coarse frames [F, 1 or count, B, 3], or the mode."""
        import torch

        chain = Chain([load_artifact(folder) for folder in artifacts], ladder, torch.device("cpu"))
        frames = [int(frame) for frame in self.frames]
        levels: dict[str, list[np.ndarray]] = {}
        for member in [None] if one else range(count):
            given = coarse[:, (member or 0) % coarse.shape[1]]
            (drawn,) = chain.run_members(given, frames, [member], SEED)
            for name, positions in drawn.items():
                levels.setdefault(name, []).append(positions)
        return {name: np.stack(drawn, axis=1) for name, drawn in levels.items()}
