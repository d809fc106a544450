"""Systems, their frame store and its split, as the campaign file has them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpcbackmap.config.model import Model
from hpcbackmap.config.values import Fraction, Line, Megabytes, Name, Steps, StepsOrNone

__all__ = ["SplitConfig", "StoreConfig", "SystemConfig"]


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
