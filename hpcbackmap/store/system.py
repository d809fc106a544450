"""One system of a frame store: reading its frames, writing its shards."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.store import layout
from hpcbackmap.store.attributes import Attributes, SystemRecord
from hpcbackmap.store.shards import ShardedArrays

__all__ = ["StoredSystem", "shard_digest"]


class StoredSystem:
    """One system of a store.

    name; n_frames; first_frame: number of its frame 0 among all frames of the store; shard_frames: frames per
    shard; sources: (name of the source file, first frame, frame after the last) in order; observables,
    residue_values: names of numbers of frames and of residues;
    written: digests of the shards that were written through this object.
    """

    def __init__(
        self,
        arrays: ShardedArrays,
        record: SystemRecord,
        attributes: Attributes,
        first_frame: int,
        before: "StoredSystem | None",
    ):
        """record: this system in ``attributes`` of the store. before: its neighbour in its pack."""
        self.name: str = record["name"]
        self.n_frames: int = record["frames"]
        self.first_frame = first_frame
        self.shard_frames: int = record["shard_frames"]
        self.sources = [(name, start, stop) for name, start, stop in record["sources"]]
        self.written: dict[int, str] = {}
        self._arrays = arrays
        self._record = record
        self._resolutions: list[str] = attributes["resolutions"]
        self.observables: tuple[str, ...] = tuple(attributes["observables"])
        self.residue_values: tuple[str, ...] = tuple(attributes.get("residue_values", ()))
        self._particles = dict(zip(self._resolutions, record["particles"], strict=True))
        self._packed = record["pack"] is not None
        self._folder = f"packs/{record['pack']}" if self._packed else f"systems/{self.name}"
        self._pack_frame: int = before._pack_frame + before.n_frames if before else 0
        self._pack_row: dict[str, int] = {
            name: before._pack_row[name] + before.n_frames * before.n_particles(name)
            if before
            else 0
            for name in self._resolutions
        }

    @cached_property
    def ladder(self) -> Ladder:
        """Raises InputError if it is damaged, or of other particles than the store holds."""
        where = f"{self._arrays.path}: ladder of system {self.name}"
        start, stop = self._record["ladder"]
        try:
            ladder = layout.unpack_ladder(self._arrays.read("ladders", start, stop))
            sizes = {name: ladder.n_particles(name) for name in self._resolutions}
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        if sizes != self._particles:
            raise InputError(f"{where}: has {sizes} particles, the store {self._particles}")
        return ladder

    @property
    def n_shards(self) -> int:
        return -(-self.n_frames // self.shard_frames)

    def n_particles(self, resolution: str) -> int:
        """Particles of a frame. Raises InputError if the store does not hold this resolution."""
        if resolution not in self._particles:
            known = ", ".join(self._resolutions)
            raise InputError(
                f"{self._arrays.path}: no resolution {resolution!r}; there are {known}"
            )
        return self._particles[resolution]

    def block_frames(self, resolution: str) -> int:
        """Frames that are decoded together: read multiples of it, aligned."""
        self.n_particles(resolution)
        if self._packed:
            return self.n_frames
        return self._arrays.array(self._position_path(resolution)).chunks[0]

    def read(self, resolution: str, start: int, stop: int) -> np.ndarray:
        """Positions of frames ``start`` to ``stop``, float32 [n, particles, 3], nm.

        Raises InputError for frames or a resolution that do not exist, and for damaged data.
        """
        path, first, last = self.place(resolution, start, stop)
        rows = self._arrays.read(path, first, last)
        return rows.reshape(-1, self.n_particles(resolution), 3)

    def read_at(self, resolution: str, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Positions of the frames with these ascending numbers; no more of the rest than a block is held."""
        wanted = np.asarray(frames)
        blocks = wanted // self.block_frames(resolution)
        pieces = []
        for block in np.unique(blocks):
            here = wanted[blocks == block]
            first = int(here[0])
            pieces.append(self.read(resolution, first, int(here[-1]) + 1)[here - first])
        return np.concatenate(pieces)

    def place(self, resolution: str, start: int, stop: int) -> tuple[str, int, int]:
        """Where these frames are: array, its first row, the row after the last.

        Raises InputError for frames or a resolution that do not exist.
        """
        self._require_frames(start, stop)
        particles, path = self.n_particles(resolution), self._position_path(resolution)
        if not self._packed:
            return path, start, stop
        first = self._pack_row[resolution]
        return path, first + start * particles, first + stop * particles

    def read_observable(self, name: str, start: int, stop: int) -> np.ndarray:
        """Values of an observable (``step``, ``time``, ``member``, …) for frames ``start`` to ``stop``, [n]."""
        self._require_frames(start, stop)
        self._require_observable(name)
        first = self._pack_frame
        return self._arrays.read(self._observable_path(name), first + start, first + stop)

    def read_cells_at(self, frames: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Boxes of the frames with these ascending numbers, float32 [n, 3, 3] (nm), zeros where a frame has
        none; None where the store keeps none.
        """
        if not set(layout.CELL) <= set(self.observables):
            return None
        wanted = np.asarray(frames)
        first, last = int(wanted[0]), int(wanted[-1]) + 1
        columns = [self.read_observable(name, first, last)[wanted - first] for name in layout.CELL]
        return np.stack(columns, 1).reshape(-1, 3, 3).astype(np.float32)

    def read_of_residues(self, name: str, start: int, stop: int) -> np.ndarray:
        """A number of each residue (``expected_error``, nm) in frames ``start`` to ``stop``, float32 [n, R].

        Raises InputError for a name or frames that do not exist, and for damaged data.
        """
        self._require_frames(start, stop)
        if name not in self.residue_values:
            known = ", ".join(self.residue_values) or "none"
            raise InputError(
                f"{self._arrays.path}: no numbers {name!r} of residues; there are {known}"
            )
        return self._arrays.read(self._residue_path(name), start, stop).astype(np.float32)

    def write_shard(
        self,
        shard: int,
        positions: dict[str, np.ndarray],
        observables: dict[str, np.ndarray] | None = None,
        of_residues: dict[str, np.ndarray] | None = None,
    ) -> str:
        """Write one shard whole and flush it; the finest resolution comes last. Returns its `digest`.

        positions: every resolution of the store, [rows, particles, 3], nm. observables: each [rows].
        of_residues: each [rows, R].
        One writer per shard, ever; systems in packs are written with `FrameStore.write_pack`.
        Raises OutputError if it cannot be written.
        """
        start, stop = self._rows(shard)
        rows, written = stop - start, {}
        for name in self.observables:
            values = _require_rows((observables or {})[name], (rows,), f"observable {name}")
            written[name] = self._arrays.write(self._observable_path(name), shard, values)
        for name in self.residue_values:
            own = (of_residues or {})[name]
            values = _require_rows(own, (rows, self._record["residues"]), f"{name} of residues")
            written[name] = self._arrays.write(self._residue_path(name), shard, values)
        for resolution in reversed(self._resolutions):
            shape = (rows, self.n_particles(resolution), 3)
            values = _require_rows(positions[resolution], shape, resolution)
            written[resolution] = self._arrays.write(self._position_path(resolution), shard, values)
        order = (*self._resolutions, *self.observables, *self.residue_values)
        found = shard_digest(written[name] for name in order)
        self.written[shard] = found
        return found

    def digest(self, shard: int) -> str:
        """SHA-256 of all numbers of a shard (`numbers`).

        Raises InputError where it is missing or damaged.
        """
        return shard_digest(self.numbers(shard))

    def numbers(self, shard: int) -> Iterator[np.ndarray]:
        """All numbers of a shard as they are read: positions fine to coarse, then observables, then those of
        residues as they are stored.
        """
        start, stop = self._rows(shard)
        for name in self._resolutions:
            yield self.read(name, start, stop)
        for name in self.observables:
            yield self.read_observable(name, start, stop)
        for name in self.residue_values:
            yield self._arrays.read(self._residue_path(name), start, stop)

    def _rows(self, shard: int) -> tuple[int, int]:
        """First frame of a shard, and the one after its last."""
        start = shard * self.shard_frames
        return start, min(self.n_frames, start + self.shard_frames)

    def shard_exists(self, shard: int) -> bool:
        """Whether every array of a shard was written."""
        number = 0 if self._packed else shard
        return all(self._arrays.exists(path, number) for path in self._paths())

    def shard_places(self, shard: int) -> list[str]:
        """File or URL of every array of a shard, or of the system's pack."""
        return [self._arrays.place(path, 0 if self._packed else shard) for path in self._paths()]

    @property
    def finest_path(self) -> str:
        """Path in the store of the finest positions."""
        return self._position_path(self._resolutions[0])

    @property
    def last_place(self) -> str:
        """File of the last shard of the finest positions, as the attributes have it; no array is opened."""
        shard = 0 if self._packed else self.n_shards - 1
        folders = f"{self._arrays.path}/{self.finest_path}/c/{shard}"
        return folders + "/0" * (1 if self._packed else 2)

    def shards_there(self) -> Collection[int]:
        """Shards with a file at the finest resolution; in object storage nothing is listed, and all count.

        Takes no more time and memory than there are files, whatever the attributes claim.
        """
        if self._arrays.folder is None:
            return range(self.n_shards)
        if self._packed:
            return {0} if Path(self.last_place).exists() else set()
        files = Path(self.last_place).parents[2].glob("*/0/0")
        names = (file.parent.parent.name for file in files)
        numbers = {int(name) for name in names if name.isdecimal() and len(name) < 16}
        return {number for number in numbers if number < self.n_shards}

    def _paths(self) -> Iterator[str]:
        for resolution in self._resolutions:
            yield self._position_path(resolution)
        for name in self.observables:
            yield self._observable_path(name)
        for name in self.residue_values:
            yield self._residue_path(name)

    def _residue_path(self, name: str) -> str:
        return f"{self._folder}/{layout.residue_path(name)}"

    def _position_path(self, resolution: str) -> str:
        return f"{self._folder}/{layout.position_path(resolution)}"

    def _observable_path(self, name: str) -> str:
        return f"{self._folder}/{layout.observable_path(name, self._resolutions[0])}"

    def _require_frames(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.n_frames:
            raise InputError(
                f"{self._arrays.path}: system {self.name} has frames 0 to {self.n_frames - 1}, "
                f"not {start} to {stop - 1}"
            )

    def _require_observable(self, name: str) -> None:
        known = self.observables
        if name not in known:
            have = ", ".join(known) or "none"
            raise InputError(f"{self._arrays.path}: no observable {name!r}; there are {have}")


def shard_digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of the bytes of these arrays, one after the other."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _require_rows(values: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
    values = np.asarray(values)
    if values.shape != shape:
        raise ValueError(f"{what}: shape {values.shape}, the shard needs {shape}")
    return values
