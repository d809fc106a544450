"""The campaign file: strict models, every key and its default once. `config.load` reads it."""

import hashlib
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from hpcbackmap.config.conversion import current_model
from hpcbackmap.config.data import SplitConfig, StoreConfig, SystemConfig
from hpcbackmap.config.model import Model
from hpcbackmap.config.nodes import NodeGroup, NodeGroups
from hpcbackmap.config.stage_kinds import (
    KINDS,
    CgvaeConfig,
    GenzprotConfig,
    ModelConfig,
    TraceConfig,
)
from hpcbackmap.config.train import CHANGE_NO_WEIGHT, TrainConfig
from hpcbackmap.config.values import (
    Frames,
    Letters,
    Line,
    Members,
    Name,
    Seed,
    Steps,
)
from hpcbackmap.resolution.build import resolution_name

__all__ = [
    "CHANGE_NO_WEIGHT",
    "KINDS",
    "BackmapConfig",
    "Campaign",
    "CgvaeConfig",
    "EvaluateConfig",
    "GenzprotConfig",
    "ModelConfig",
    "NodeGroup",
    "NodeGroups",
    "SplitConfig",
    "StageConfig",
    "StoreConfig",
    "SystemConfig",
    "TraceConfig",
    "TrainConfig",
    "with_paths",
]


MAX_STRUCTURES = 10_000
"""Structures of one input frame; they are in memory together."""
RESOLUTION = re.compile(r"\w[\w.+]*")


class StageConfig(Model):
    model: Annotated[ModelConfig, Field(discriminator="kind")]
    """The stage kind and its sizes."""
    train: TrainConfig = TrainConfig()
    """Its training."""
    artifact: Line | None = None
    """Use this trained stage, or ``shipped``, the one that comes with the package, instead of training one."""
    node_group: NodeGroup = NodeGroup()
    """Its nodes on a Slurm cluster."""


class BackmapConfig(Model):
    """From coarse frames to structures."""

    input: Line | None = None
    """Store of coarse frames; default: the held-out frames of the campaign's own store."""
    start: Line | None = None
    """Resolution of the input frames; default: the coarsest of the ladder."""
    frames: (
        Annotated[str, Field(pattern=r"^[0-9]{0,12}:[0-9]{0,12}(:[1-9][0-9]{0,11})?$")] | None
    ) = None
    """``START:STOP:STRIDE`` among the frames of every system; default: all."""
    output: Line = "backmapped.zarr"
    """Store to write, under the working folder."""
    keep: list[Line] | None = None
    """Resolutions to write; default: all below the input."""
    members: Members | dict[str, Members] = 3
    """Structures per input frame. By stage: what it draws for every sample of the stage before (default 1)."""
    mode: bool = False
    """Write the one most likely structure per frame instead of members."""
    seed: Seed = 0
    """Of the draws: the same seed gives the same structures on any number of ranks."""
    coherence: Annotated[int, Field(ge=1, le=1000)] = 1
    """Frames over which a member's noise stays alike, so that a trajectory does not flicker; 1: each frame is
    drawn on its own."""
    batch_frames: Frames | Literal["auto"] = 16
    """``auto``: measured when the plan is made."""
    shard_frames: Frames | Literal["auto"] = "auto"
    """Frames of a shard; ``auto``: about two minutes of work, measured when the plan is made."""
    hydrogens: bool = False
    """Add hydrogens to the heavy atoms."""
    relax: bool = False
    """Minimise each structure in a force field, heavy atoms restrained; needs OpenMM (``hpcbackmap[md]``)."""
    ph: Annotated[float, Field(ge=0, le=14)] = 7.0
    """Of the hydrogens: which acids and bases carry theirs."""
    reference: Line | None = None
    """A structure of the protein, which a ``trace`` stage carries onto the beads."""
    secondary_structure: Letters | None = None
    """Letters H, E, C, ? of each residue (chains apart by ``/``), or a file of them, for a ``trace`` stage."""

    @field_validator("output")
    @classmethod
    def _is_a_folder(cls, output: str) -> str:
        if "://" in output:
            raise ValueError(
                "backmapping writes to a folder, not to a URL; copy it when it is whole"
            )
        return output


class EvaluateConfig(Model):
    """How structures are judged."""

    max_frames: Steps | None = None
    """Evenly spaced subset of the backmapped frames; default: all."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Resamplings of blocks of frames behind every interval."""


class Campaign(Model):
    """The whole road of one project. Stages are named ``coarse-fine``, for example ``ca-fg``."""

    name: Name
    """What the campaign is called, in records and jobs."""
    workdir: Line = "work"
    """Everything the campaign writes, relative to the campaign file."""
    ladder: list[Line] = Field(min_length=2)
    """Fine to coarse: ``fg``; ``ca``, ``com``, ``bb``, ``ucg:10[:segments|blobs|cgae]``, ``ucg:/4``,
    ``ucg:8,12,10``, each of these with ``:atoms`` or ``:mass`` for means or mass centres of heavy atoms;
    ``file:PATH``."""
    systems: list[SystemConfig] = Field(min_length=1)
    """The proteins and their trajectories."""
    store: StoreConfig = StoreConfig()
    """Where and how frames are stored."""
    split: SplitConfig = SplitConfig()
    """Which frames train, validate and test."""
    stages: dict[str, StageConfig] = {}
    """A stage for every rung, by its name."""
    backmap: BackmapConfig = BackmapConfig()
    """From coarse frames to structures."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How structures are judged."""
    node_groups: NodeGroups = NodeGroups()
    """Nodes of the steps that are no stages."""
    seed: Seed = 0
    """Of a learned mapping, of bootstrap intervals and of the samples behind a likelihood."""

    @field_validator("ladder")
    @classmethod
    def _starts_fine(cls, ladder: list[str]) -> list[str]:
        if ladder[0] != "fg":
            raise ValueError("the ladder starts at fg (heavy atoms), fine to coarse")
        names = [resolution_name(spec) for spec in ladder]
        for spec, name in zip(ladder, names, strict=True):
            if not RESOLUTION.fullmatch(name) or len(name) > 64:
                raise ValueError(
                    f"{spec!r} would be called {name!r}; a resolution's name is letters, digits, '_', '.' and "
                    "'+', 64 at most"
                )
        if len(set(names)) != len(names):
            raise ValueError(f"two resolutions have one name ({', '.join(names)})")
        return ladder

    @model_validator(mode="before")
    @classmethod
    def _stages_of_former_versions(cls, record: Any) -> Any:
        stages = record.get("stages") if isinstance(record, dict) else None
        if not isinstance(stages, dict):
            return record
        return record | {"stages": {name: _current_stage(name, it) for name, it in stages.items()}}

    @model_validator(mode="after")
    def _stages_are_rungs(self) -> "Campaign":
        rungs = self.rungs()
        for name, stage in self.stages.items():
            if name not in rungs:
                raise ValueError(f"stages.{name}: no such rung; this ladder has {', '.join(rungs)}")
            if stage.model.kind == "genzprot" and name != "ca-fg":
                raise ValueError(
                    f"stages.{name}: genzprot rebuilds heavy atoms from ca; use cgvae here"
                )
            if stage.model.kind == "trace" and not name.endswith("-ca"):
                raise ValueError(f"stages.{name}: trace places C-alpha atoms; use cgvae here")
        return self

    @model_validator(mode="after")
    def _systems_are_on_the_ladder(self) -> "Campaign":
        known = self.resolutions()[1:]
        for number, system in enumerate(self.systems):
            if system.resolution is not None and system.resolution not in known:
                raise ValueError(
                    f"systems.{number}.resolution: {system.resolution!r} is not one of "
                    f"{', '.join(known)}"
                )
        return self

    @model_validator(mode="after")
    def _backmap_is_on_the_ladder(self) -> "Campaign":
        known, wanted = self.resolutions(), self.backmap
        if wanted.start is not None and wanted.start not in known[1:]:
            raise ValueError(
                f"backmap.start: {wanted.start!r} is not one of {', '.join(known[1:])}"
            )
        made = known[: known.index(wanted.start or known[-1])]
        for name in wanted.keep or []:
            if name not in made:
                raise ValueError(
                    f"backmap.keep: {name!r} is not made; there will be {', '.join(made)}"
                )
        if wanted.hydrogens and "fg" not in (wanted.keep or made):
            raise ValueError("backmap.hydrogens: stand beside heavy atoms; add fg to backmap.keep")
        if wanted.relax and "fg" not in (wanted.keep or made):
            raise ValueError("backmap.relax: moves heavy atoms; add fg to backmap.keep")
        if wanted.keep == []:
            raise ValueError(f"backmap.keep: name at least one of {', '.join(made)}")
        if math.prod(self.draws().values()) > MAX_STRUCTURES:
            raise ValueError(
                f"backmap.members: {MAX_STRUCTURES:,} structures of a frame at most, not "
                f"{math.prod(self.draws().values()):,}"
            )
        for name in wanted.members if isinstance(wanted.members, dict) else ():
            if name not in self.descent():
                raise ValueError(
                    f"backmap.members.{name}: no such stage on the way down; there are "
                    f"{', '.join(self.descent())}"
                )
        return self

    def descent(self) -> list[str]:
        """Stages that backmapping uses, coarse to fine."""
        known = self.resolutions()
        return self.rungs()[: known.index(self.backmap.start or known[-1])][::-1]

    def draws(self) -> dict[str, int]:
        """Samples that each of these stages draws for every sample of the stage before."""
        members, stages = self.backmap.members, self.descent()
        if isinstance(members, dict):
            return {name: members.get(name, 1) for name in stages}
        return {name: members if name == stages[0] else 1 for name in stages}

    def resolutions(self) -> list[str]:
        """Resolution names, fine to coarse: ``ucg:10:blobs`` is called ``ucg10``."""
        return [resolution_name(spec) for spec in self.ladder]

    def rungs(self) -> list[str]:
        """Stage names, fine to coarse."""
        names = self.resolutions()
        return [f"{coarse}-{fine}" for fine, coarse in itertools.pairwise(names)]

    def clusters(self) -> dict[str, str]:
        """Cluster of every system that names one."""
        return {system.name: system.cluster for system in self.systems if system.cluster}

    def path(self, relative: str) -> Path:
        """A path of this campaign under its working folder."""
        return Path(self.workdir) / relative

    def store_place(self) -> str:
        """Folder or URL of the frame store."""
        place = self.store.path
        return place.rstrip("/") if "://" in place else str(self.path(place))

    def digest(self) -> str:
        """Of all settings that may change a result: not the nodes, what only watches a training, or folders.

        Of a path its name counts; what it holds, the steps compare by content.
        """
        watching: Any = {"train": CHANGE_NO_WEIGHT, "node_group": True}
        elsewhere: Any = {"workdir": True, "node_groups": True, "stages": {"__all__": watching}}
        record = with_paths(self.model_dump(mode="json"), lambda path: Path(path).name)
        bare = Campaign.model_validate(record).model_dump_json(exclude=elsewhere)
        return hashlib.sha256(bare.encode()).hexdigest()


def _current_stage(name: Any, stage: Any) -> Any:
    if not (isinstance(stage, dict) and isinstance(stage.get("model"), dict)):
        return stage
    fine = str(name).partition("-")[2]
    return stage | {"model": current_model(stage["model"], fine, f"stages.{name}.model")}


def with_paths(record: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A campaign's dump, with ``change(path)`` for every path in it."""
    record["workdir"] = change(record["workdir"])
    record["ladder"] = [
        "file:" + change(spec[5:]) if spec.startswith("file:") else spec
        for spec in record["ladder"]
    ]
    for system in record["systems"]:
        system["trajectories"] = [change(item) for item in system["trajectories"]]
        for key in ("topology", "molecule"):
            system[key] = system[key] and change(system[key])
    for stage in record["stages"].values():
        stage["artifact"] = stage["artifact"] and change(stage["artifact"])
        train = stage["train"]
        train["init_from"] = train["init_from"] and change(train["init_from"])
    for key in ("input", "reference"):
        if record["backmap"][key]:
            record["backmap"][key] = change(record["backmap"][key])
    return record
