"""The deterministic cutting of a backmapping run into shards."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hpcbackmap.protein.hydrogens import HYDROGENS
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.differences import first_difference
from hpcbackmap.stages.noise import Coherence

__all__ = ["Plan", "Shard"]


@dataclass(frozen=True)
class Shard:
    """Unit of work, of writing and of recovery: input frames ``start`` to ``stop`` of one system.

    Positions count the chosen frames of the system, not the frames of the input store. ``number`` is the
    shard's index among those of its system.
    """

    system: str
    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """Everything that decides the output, so that two runs of one plan write the same bits.

    On the CPU this is tested; on CUDA deterministic algorithms are asked for, untested.

    input, stages: content hashes of the input store and of the artifacts (by rung, coarse to fine).
    start: resolution of the input frames. resolutions: those that are written, fine to coarse.
    frames: chosen frames of each system as [start, stop, step] ranges of local indices in the input store.
    draws: samples that each rung draws for every sample of the one before, coarse to fine.
    source: of files, what is read from them; of a store, None.
    finish: what is done to whole structures after the chain; None: nothing. protonation: where they get
    hydrogens, be it only to be relaxed, the states of each system's residues (`Topology.protonation`), which
    follow from the rest. reference: content hash of the structure that guides the trace stage; None: without.
    coherence: frames over which the noise of a member stays alike, counted among the chosen ones.
    secondary_structure: letters that the trace stage is told; None: none.
    """

    input: str
    stages: dict[str, str]
    start: str
    resolutions: list[str]
    frames: dict[str, list[list[int]]]
    draws: dict[str, int]
    mode: bool
    seed: int
    batch_frames: int
    shard_frames: int
    device: str
    source: dict[str, Any] | None = None
    finish: dict[str, Any] | None = None
    protonation: dict[str, list[str]] | None = None
    reference: str | None = None
    coherence: int = 1
    secondary_structure: str | None = None

    def n_frames(self, system: str) -> int:
        return sum(len(range(*part)) for part in self.frames[system])

    @property
    def total_frames(self) -> int:
        return sum(map(self.n_frames, self.frames))

    @property
    def rows_per_frame(self) -> int:
        """Structures of an input frame."""
        return 1 if self.mode else math.prod(self.draws.values())

    @property
    def members(self) -> list[int | None]:
        return [None] if self.mode else list(range(self.rows_per_frame))

    def local_frames(self, shard: Shard) -> list[int]:
        """Local index in the input store of every frame of a shard, in order."""
        chosen: list[int] = []
        before = 0
        for part in (range(*bounds) for bounds in self.frames[shard.system]):
            chosen += part[max(shard.start - before, 0) : max(shard.stop - before, 0)]
            before += len(part)
        return chosen

    def coherence_of(self, system: str) -> Coherence:
        """Of the noise; chosen frames of a system are equally spaced."""
        return Coherence(self.coherence, self.frames[system][0][2])

    def rows(self, shard: Shard) -> tuple[int, int]:
        """First row of a shard in the output, and the row after its last."""
        return shard.start * self.rows_per_frame, shard.stop * self.rows_per_frame

    @cached_property
    def shards(self) -> list[Shard]:
        return [
            Shard(system, number, start, min(start + self.shard_frames, self.n_frames(system)))
            for system in self.frames
            for number, start in enumerate(range(0, self.n_frames(system), self.shard_frames))
        ]

    def part(self, index: int, count: int) -> list[Shard]:
        """The index-th of ``count`` equal parts of the shards, from 0."""
        total = len(self.shards)
        return self.shards[index * total // count : (index + 1) * total // count]

    def written_ladder(self, system: str, ladder: Ladder) -> Ladder:
        """That of the structures which are written, given the one of the input."""
        has = HYDROGENS in self.resolutions
        return self.protonated_ladder(system, ladder) if has else ladder.protonated(())

    def protonated_ladder(self, system: str, ladder: Ladder) -> Ladder:
        """That of the structures with the hydrogens which they get in the finish."""
        return ladder.protonated((self.protonation or {}).get(system, ()))

    @property
    def relaxes(self) -> bool:
        return bool(self.finish and self.finish.get("relax"))

    def to_dict(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for key in ("source", "finish", "protonation", "reference", "secondary_structure"):
            if record[key] is None:
                del record[key]
        if self.coherence == 1:
            del record["coherence"]
        return record

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def first_difference(self, other: dict[str, Any]) -> str | None:
        """What a stored plan (`to_dict`) has different, in words; None if it is this plan."""
        mine = self.to_dict()
        if self.source is not None:  # says more than the hash of it, so first
            mine = {"source": self.source} | mine
        if self.finish is None and other.get("finish"):
            mine["finish"] = None
        for key in ("reference", "secondary_structure"):
            if other.get(key):
                mine.setdefault(key, None)
        mine, other = ({"coherence": 1} | record for record in (mine, other))
        return first_difference({key: other.get(key) for key in mine}, mine)
