"""The campaign file: strict models, every key and its default once. `config.load` reads it."""

import hashlib
import itertools
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hpcbackmap.config.conversion import current_model
from hpcbackmap.config.values import (
    Bound,
    Depth,
    Fraction,
    Frames,
    Line,
    Megabytes,
    Members,
    Minutes,
    Name,
    Neighbours,
    Nodes,
    Rate,
    Seed,
    Steps,
    StepsOrNone,
    Weight,
    Width,
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


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True
    )


MAX_NETWORK = 2**26
"""Most width² x layers of a network: about a billion parameters."""
MAX_STRUCTURES = 10_000
"""Structures of one input frame; they are in memory together."""
RESOLUTION = re.compile(r"\w[\w.+]*")
SYSTEM = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""It names a folder of the store."""


class SystemConfig(Model):
    """One protein system and its trajectory files."""

    name: Annotated[str, Field(pattern=SYSTEM, max_length=200)]
    """What the system is called in the store, in records and in `split`."""
    trajectories: list[Line] = Field(min_length=1)
    """Files or globs, read in order; the pieces are the `sources` that a split can keep apart."""
    topology: Line | None = None
    """Needed where the trajectory format carries none (xtc, dcd)."""
    selection: Line | None = None
    """mdtraj atom selection; default: all protein atoms."""
    resolution: Line | None = None
    """What the files hold, where that is neither heavy atoms nor C-alpha atoms: ``com``, ``ucg10``, …"""
    sequence: str | list[str] | None = None
    """Of beads: FASTA text, or one-letter codes of each chain; default: residue names in the files."""
    molecule: Line | None = None
    """Of beads, instead of `sequence`: structure of all heavy atoms, or frame store that holds this system."""
    beads: list[StepsOrNone] | list[Line] | None = None
    """File particle of each bead in the ladder's order: numbers from 0, or selections of one particle each."""
    stride: Steps = 1
    """Take every so many frames."""
    cluster: Name | None = None
    """Related systems share one: where systems name clusters, an epoch sees one frame of each cluster."""

    @model_validator(mode="after")
    def _beads_have_a_resolution(self) -> "SystemConfig":
        for key in ("sequence", "molecule", "beads"):
            if getattr(self, key) is not None and self.resolution is None:
                raise ValueError(f"{key} is for files of beads; name their `resolution`, too")
        if self.sequence is not None and self.molecule is not None:
            raise ValueError("give sequence or molecule, not both")
        if self.beads is not None and self.selection is not None:
            raise ValueError("give selection or beads, not both")
        return self


class StoreConfig(Model):
    """Layout of the frame store."""

    path: Line = "frames.zarr"
    """Folder under the working folder, or a URL such as ``s3://bucket/frames.zarr``."""
    chunk_mb: Megabytes = 1.0
    """Smallest piece that is read and decoded."""
    shard_mb: Megabytes = 64.0
    """One file of the store, written by one rank."""
    quantise: bool = False
    """Round to 0.001 nm, the precision of XTC, which compresses about three times better."""
    budget_mb: Megabytes = 256.0
    """Memory that a reading stream may hold."""


class SplitConfig(Model):
    """Which frames train, validate and test. Never random frames.

    time: the last blocks of every system. source: whole trajectory files. system: whole systems.
    """

    by: Literal["time", "source", "system"] = "time"
    """What stays together."""
    validation: Fraction = 0.1
    """Share that chooses the weights."""
    test: Fraction = 0.2
    """Share that judges them, and that is backmapped by default."""
    test_names: list[Line] = []
    """For source and system: names (file stems, system names) that are the test set."""
    validation_names: list[Line] = []
    """The same for the validation set."""


class TrainConfig(Model):
    """Optimisation of one stage. `batch_size` is global: frames per optimiser step over all ranks."""

    batch_size: Frames = 32
    """Frames of an optimiser step, over all ranks; a multiple of ranks times `accumulation`."""
    max_steps: Steps = 2000
    """Optimiser steps of the whole training."""
    max_minutes: Minutes | None = None
    """Ends the training by the clock; two such runs differ."""
    learning_rate: Rate = 1e-3
    """Largest learning rate of AdamW; it rises over `warmup_steps`, then falls along a cosine."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Of AdamW."""
    warmup_steps: StepsOrNone = 100
    """Steps over which the learning rate rises."""
    gradient_clipping: Bound = 1.0
    """Largest norm of a gradient."""
    accumulation: Frames = 1
    """Micro-batches of a step on every rank: less memory, the same numbers."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """DeepSpeed ZeRO: what the ranks share out (optimiser state, gradients, weights)."""
    offload_optimizer: bool = False
    """Optimiser state and step on the CPU while the stage trains on GPUs; needs ZeRO 1 to 3."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of message passing in training; weights and coordinates stay fp32."""
    activation_checkpointing: bool = False
    """Compute message passing a second time in the backward pass rather than keep its results."""
    validate_every: Steps = 200
    """Steps from one validation to the next."""
    validation_frames: Frames = 128
    """Frames that a validation looks at."""
    checkpoint_every: Steps = 200
    """Steps from one checkpoint to the next."""
    log_every: Steps = 20
    """Steps from one line of the training record to the next."""
    patience: Steps | None = None
    """Stop after this many validations without a better validation loss."""
    init_from: Line | None = None
    """Artifact of the same rung and model to start from, or ``shipped``, the one of the package."""
    seed: Seed = 0
    """Of the starting weights, the order of frames and the noise."""

    @model_validator(mode="after")
    def _offload_needs_zero(self) -> "TrainConfig":
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer is a part of ZeRO; set zero_stage to 1, 2 or 3")
        return self


CHANGE_NO_WEIGHT = frozenset(
    {"log_every", "checkpoint_every", "activation_checkpointing", "offload_optimizer"}
)
"""Keys of `TrainConfig` that change no weight, or like the number of ranks only its last bits."""


def _require_size(width: int, layers: int) -> None:
    if width**2 * layers > MAX_NETWORK:
        raise ValueError(
            f"width {width} with layers {layers} makes a network of more than a billion parameters"
        )


class CgvaeConfig(Model):
    """Beads to finer beads, C-alpha or heavy atoms of one protein, which it learns by heart."""

    kind: Literal["cgvae"] = "cgvae"
    """Which network and likelihood the stage has."""
    per_system: ClassVar[bool] = True
    width: Width = 64
    """Features of a bead and of a particle."""
    layers: Depth = 3
    """Rounds of message passing."""
    latent: Neighbours = 8
    """Latents of a bead."""
    beta: Weight = 1.0
    """Weight of the KL term in the training loss."""
    free_bits: Weight = 0.0
    """Nats of KL per bead that cost nothing in training; reported numbers always count them."""
    kl_warmup_steps: StepsOrNone = 0
    """Steps over which the KL term of the training loss grows to its full weight."""
    geometry_weight: Weight = 0.1
    """Weight of the bond-length term beside the ELBO; large values sharpen the posterior against the prior."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "CgvaeConfig":
        _require_size(self.width, self.layers)
        return self


class TraceConfig(Model):
    """Beads of any number of residues to the C-alpha trace of any protein, from residue types."""

    kind: Literal["trace"] = "trace"
    """Which network and likelihood the stage has."""
    per_system: ClassVar[bool] = False
    width: Width = 96
    """Features of a bead and of a residue."""
    layers: Depth = 2
    """Rounds of message passing, of each of three kinds."""
    rounds: Depth = 3
    """Refinements of the trace."""
    neighbours: Neighbours = 10
    """Neighbours in space of each residue and bead."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "TraceConfig":
        _require_size(self.width, self.layers)
        return self


class GenzprotConfig(Model):
    """C-alpha to heavy atoms (internal coordinates)."""

    kind: Literal["genzprot"] = "genzprot"
    """Which network and likelihood the stage has."""
    width: Width = 128
    """Features of a residue."""
    layers: Depth = 4
    """Rounds of message passing."""
    neighbours: Neighbours = 16
    """Nearest residues that each residue sees."""
    rounds: Depth = 4
    """Shares in which side chains are placed, each seeing those before it."""
    redraws: Annotated[int, Field(ge=0, le=64)] = 4
    """Rounds in which side chains in contact draw their torsions again."""
    steric_weight: Weight = 0.0
    """Weight of clashes among generated neighbours beside the ELBO."""
    coarse_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Largest random displacement (nm, standard deviation) of the C-alpha atoms that training shows."""
    per_system: bool = False
    """Learn one protein by heart: an embedding for each of its residues, zero at the start."""

    @model_validator(mode="after")
    def _fits_a_machine(self) -> "GenzprotConfig":
        _require_size(self.width, self.layers)
        return self


ModelConfig = CgvaeConfig | TraceConfig | GenzprotConfig
KINDS: dict[str, type[CgvaeConfig] | type[TraceConfig] | type[GenzprotConfig]] = {
    "cgvae": CgvaeConfig,
    "trace": TraceConfig,
    "genzprot": GenzprotConfig,
}

SLURM_TIME = re.compile(r"([0-9]{1,6}-)?[0-9]{1,6}(:[0-9][0-9]){0,2}")


class NodeGroup(Model):
    """Nodes of a Slurm cluster for one step. What is None is left to the batch script and the site."""

    nodes: Nodes = 1
    """Nodes of the job."""
    tasks_per_node: Nodes = 1
    """Ranks: one per GPU, or as many as the cores serve."""
    cpus_per_task: Nodes | None = None
    """Cores of a rank."""
    gpus_per_node: Nodes | None = None
    """GPUs of a node."""
    partition: Line | None = None
    """Partition, as `sinfo` lists them."""
    time: str | None = None
    """``"HH:MM:SS"`` or ``D-HH:MM:SS``; a stage that is not done by then requeues itself."""
    account: Line | None = None
    """Account that is charged."""
    constraint: Line | None = None
    """Features that the nodes must have."""
    mem: Annotated[str, Field(pattern=r"^[0-9]{1,12}[KMGT]?$")] | None = None
    """Per node, for example ``64G``."""
    sbatch: list[Line] = []
    """More options of sbatch, for example ``--qos=high``."""

    @field_validator("time", mode="before")
    @classmethod
    def _is_slurm_time(cls, time: Any) -> Any:
        if time is None or (isinstance(time, str) and SLURM_TIME.fullmatch(time)):
            return time
        raise ValueError(
            'write a time as "04:00:00" or 1-12:00:00, in quotes where YAML sees a number'
        )

    @field_validator("sbatch")
    @classmethod
    def _are_options(cls, options: list[str]) -> list[str]:
        for option in options:
            try:
                words = shlex.split(option)
            except ValueError as error:
                raise ValueError(f"{option!r}: {error}") from None
            if not words or not words[0].startswith("-"):
                raise ValueError(f"{option!r}: write an option of sbatch, such as --qos=high")
        return options

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


class NodeGroups(Model):
    """Nodes for the steps that are no stages; a stage has its own `node_group`."""

    ingest: NodeGroup = NodeGroup()
    """For `ingest`."""
    backmap: NodeGroup = NodeGroup()
    """For `backmap`."""
    evaluate: NodeGroup = NodeGroup()
    """For `evaluate`, likelihoods and report."""


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


def with_paths(record: dict, change: Callable[[str], str]) -> dict:
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
