"""The deterministic cutting of a backmapping run into shards."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

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

    frames: chosen frames of each system as (start, stop) ranges of local indices in the input store.
    input, stages: content hashes of the input store and of the artifacts (by rung).
    """

    input: str
    stages: dict[str, str]
    resolutions: list[str]
    frames: dict[str, list[tuple[int, int]]]
    members: int
    mode: bool
    seed: int
    batch_frames: int
    shard_frames: int
    device: str

    def n_frames(self, system: str) -> int:
        return sum(stop - start for start, stop in self.frames[system])

    def local_frames(self, shard: Shard) -> list[int]:
        """Local index in the input store of every frame of a shard, in order."""
        chosen, before = [], 0
        for start, stop in self.frames[shard.system]:
            first = start + max(shard.start - before, 0)
            last = min(stop, start + shard.stop - before)
            chosen += range(first, last)
            before += stop - start
        return chosen

    @cached_property
    def shards(self) -> list[Shard]:
        return [
            Shard(system, number, start, min(start + self.shard_frames, self.n_frames(system)))
            for system in self.frames
            for number, start in enumerate(range(0, self.n_frames(system), self.shard_frames))
        ]

    @property
    def rows_per_frame(self) -> int:
        return 1 if self.mode else self.members

    def to_dict(self) -> dict:
        return json.loads(json.dumps(asdict(self)))

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def first_difference(self, other: dict) -> str | None:
        """What a stored plan (`to_dict`) has different, in words; None if it is this plan."""
        mine = self.to_dict()
        for key in mine:
            if other.get(key) != mine[key]:
                return f"{key} (there {_short(other.get(key))}, here {_short(mine[key])})"
        return None


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
