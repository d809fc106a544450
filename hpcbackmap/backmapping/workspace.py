"""Finished shards of a run whose output is files, until all are there: one plain array each, in a folder.

It answers like a frame store of one system that is being written, so that plan, records and worker need not
know which of the two they fill; it costs nothing to make, read or leave behind.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import commit, read_regular, scratch_of, writing
from hpcbackmap.runtime.parsing import sealed, unsealed

__all__ = ["Workspace", "create_workspace", "is_workspace", "open_workspace"]

MANIFEST = "workspace.json"


def is_workspace(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def create_workspace(
    folder: Path,
    plan: dict[str, Any],
    system: str,
    rows: int,
    particles: dict[str, int],
    shard_rows: int,
) -> None:
    """An empty one. particles: of each resolution. shard_rows: structures of a shard."""
    record = {
        "provenance": {"plan": plan},
        "system": system,
        "rows": rows,
        "particles": particles,
        "shard_rows": shard_rows,
    }
    with writing(folder):
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(sealed(record))


def open_workspace(folder: Path) -> "Workspace":
    """Raises InputError if it is damaged."""
    try:
        record = unsealed(read_regular(folder / MANIFEST))
        return Workspace(folder, record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: damaged ({error}); remove it and start over") from None


class Workspace:
    """attributes: as of a frame store."""

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.path, self.attributes = str(folder), record
        self._system = ShardFiles(folder, record)

    def system(self, name: str) -> "ShardFiles":
        return self._system

    def mark_complete(self, checksums: dict[tuple[str, int], str], **facts: object) -> None:
        """What it holds is delivered and then removed: there is nothing to mark."""


class ShardFiles:
    """Structures of one system: rows [n, particles, 3], nm, of every resolution, by shard."""

    observables: tuple[str, ...] = ()
    residue_values: tuple[str, ...] = ()

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.name: str = record["system"]
        self.n_frames: int = record["rows"]
        self.shard_frames: int = record["shard_rows"]
        self._folder, self._particles = folder, record["particles"]

    def read(self, resolution: str, start: int, stop: int) -> np.ndarray:
        """Raises InputError for a shard that is missing or damaged."""
        size, pieces = self.shard_frames, []
        for shard in range(start // size, -(-stop // size)):
            rows = self._load(resolution, shard)
            pieces.append(rows[max(start - shard * size, 0) : stop - shard * size])
        return np.concatenate(pieces)

    def write_shard(
        self,
        shard: int,
        positions: dict[str, np.ndarray],
        observables: dict[str, np.ndarray] | None = None,
        of_residues: dict[str, np.ndarray] | None = None,
    ) -> None:
        """Write one shard whole and flush it; what is observed follows from its number. Raises OutputError."""
        for resolution, values in positions.items():
            path = self._file(resolution, shard)
            scratch = scratch_of(path)
            with writing(self._folder):
                with scratch.open("wb") as file:
                    np.save(file, np.ascontiguousarray(values, dtype=np.float32))
                commit(scratch, path)

    def digest(self, shard: int) -> str:
        """SHA-256 of all that a shard holds. Raises InputError for one that is missing or damaged."""
        digest = hashlib.sha256()
        for resolution in self._particles:
            digest.update(np.ascontiguousarray(self._load(resolution, shard)).data)
        return digest.hexdigest()

    def _load(self, resolution: str, shard: int) -> np.ndarray:
        path = self._file(resolution, shard)
        rows = min(self.n_frames - shard * self.shard_frames, self.shard_frames)
        try:
            values: np.ndarray = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: missing or damaged ({error})") from None
        if values.shape != (rows, self._particles[resolution], 3):
            raise InputError(f"{path}: damaged (shape {values.shape})")
        return values

    def _file(self, resolution: str, shard: int) -> Path:
        return self._folder / f"{resolution}.{shard:08d}.npy"
