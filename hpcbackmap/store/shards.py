"""Sharded arrays of a store: read with checksums, written whole, one shard at a time, onto the disk."""

import asyncio
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.api.asynchronous

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import flush, is_url, reason, require_file, writing
from hpcbackmap.store import layout
from hpcbackmap.store.claims import RECOPY, ArrayClaim, check_array
from hpcbackmap.store.location import METADATA_ERRORS, exists, reaching

__all__ = ["ShardedArrays"]


AGAIN = (
    "copy it again, or: `hpcbackmap backmap` makes such a shard again, for `hpcbackmap ingest` remove the "
    "store first"
)


class ShardedArrays:
    """The arrays under one Zarr group, by path. ``folder`` is None in object storage.

    claims: what each has to be; others are not looked at.
    """

    def __init__(self, path: str, root: zarr.Group, claims: dict[str, ArrayClaim]):
        self.path, self.claims = path, claims
        self.folder = None if is_url(path) else Path(path)
        self._root = root
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._together: dict[str, zarr.AsyncArray[Any]] = {}
        self._seen: set[tuple[str, int]] = set()

    def array(self, path: str) -> zarr.Array[Any]:
        """The array at ``path``; opened once. Frames that are not numbers are written like others.

        Raises InputError where it is missing, cannot be read, or is not what the store's attributes promise.
        """
        if path not in self._arrays:
            found = self._open(path)
            try:
                fault = check_array(found, self.claims[path]) if path in self.claims else None
            except METADATA_ERRORS as error:
                fault = f"cannot be read ({reason(error)})"
            if fault:
                raise InputError(f"{self.path}/{path}/zarr.json: {fault}; {RECOPY}")
            self._arrays[path] = found.with_config({"write_empty_chunks": True})
        return self._arrays[path]

    def _open(self, path: str) -> zarr.Array[Any]:
        where = f"{self.path}/{path}/zarr.json"
        if self.folder is not None:
            require_file(where)
        try:
            with reaching(self.path, passing=METADATA_ERRORS):
                found = self._root[path]
        except (KeyError, FileNotFoundError):
            raise InputError(f"{where}: missing; {RECOPY}") from None
        except METADATA_ERRORS as error:
            raise InputError(f"{where}: cannot be read ({reason(error)}); {RECOPY}") from None
        if not isinstance(found, zarr.Array):
            raise InputError(f"{where}: describes no array; {RECOPY}")
        return found

    def place(self, path: str, shard: int) -> str:
        """File or URL of one shard."""
        return f"{self.path}/{path}/c/{shard}" + "/0" * (self.array(path).ndim - 1)

    def file(self, path: str, shard: int) -> Path | None:
        """File of one shard; None in object storage."""
        return None if self.folder is None else Path(self.place(path, shard))

    def exists(self, path: str, shard: int) -> bool:
        """Whether a shard was written; a missing one would read as numbers that are not there."""
        file = self.file(path, shard)
        if file is not None:
            return file.is_file()
        if (path, shard) not in self._seen:
            if not exists(self.place(path, shard)):
                return False
            self._seen.add((path, shard))
        return True

    def read(self, path: str, start: int, stop: int) -> np.ndarray:
        """Rows of one array; quantised positions as float32, nm.

        Raises InputError that names the shard that is missing or damaged.
        """
        array = self.array(path)
        size = _rows_of_a_shard(array)
        shards = range(start // size, -(-stop // size))
        self._require_files(path, shards)
        try:
            values = np.asarray(array[start:stop])
        except Exception as error:  # checksum, codec and file errors have no common class in zarr
            culprit = next(
                (s for s in shards if not self._readable(array, s * size, (s + 1) * size)),
                shards[0],
            )
            reason = str(error).split(".")[0]
            raise InputError(
                f"{self.path}: shard {culprit} of {path} is damaged ({reason}); {AGAIN}"
            ) from None
        return _positions(array, values)

    def read_together(self, pieces: list[tuple[str, int, int]]) -> list[np.ndarray]:
        """What `read` gives for every (path, start, stop), in less time: all are under way at once."""
        for path, start, stop in pieces:
            size = _rows_of_a_shard(self.array(path))
            self._require_files(path, range(start // size, -(-stop // size)))

        async def all_pieces() -> list[np.ndarray]:
            opened = await asyncio.gather(*[self._opened(path) for path, _, _ in pieces])
            found: list[np.ndarray] = await asyncio.gather(
                *[
                    array.getitem(slice(start, stop))
                    for array, (_, start, stop) in zip(opened, pieces, strict=True)
                ]
            )
            return found

        try:
            values = asyncio.run_coroutine_threadsafe(all_pieces(), _reads()).result()
        except Exception:
            return [self.read(*piece) for piece in pieces]
        return [
            _positions(self.array(path), rows)
            for (path, _, _), rows in zip(pieces, values, strict=True)
        ]

    async def _opened(self, path: str) -> Any:
        """The array at ``path`` for reads that are waited for together; opened once."""
        if path not in self._together:
            place = f"{self.path}/{path}"
            self._together[path] = await zarr.api.asynchronous.open_array(store=place, mode="r")
        return self._together[path]

    def write(self, path: str, shard: int, values: np.ndarray) -> np.ndarray:
        """One shard of one array, whole, and onto the disk; returns what `read` will find there.

        Raises OutputError.
        """
        array, file = self.array(path), self.file(path, shard)
        start = shard * _rows_of_a_shard(array)
        stored = layout.to_quanta(values) if _quantised(array) else values
        with writing(self.path):
            if file is not None:
                file.unlink(missing_ok=True)  # zarr would merge with what is there, damaged or not
            array[start : start + len(values)] = stored
            if file is not None:
                flush(file)
                for folder in file.parents[: array.ndim + 1]:
                    flush(folder)
        return layout.as_read(stored, array.dtype.str, _quantised(array))

    def _require_files(self, path: str, shards: range) -> None:
        for shard in shards:
            if not self.exists(path, shard):
                raise InputError(f"{self.path}: shard {shard} of {path} is missing; {AGAIN}")

    @staticmethod
    def _readable(array: zarr.Array[Any], start: int, stop: int) -> bool:
        try:
            array[start:stop]
        except Exception:
            return False
        return True


@cache
def _reads() -> asyncio.AbstractEventLoop:
    """The event loop of reads that are under way at once, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="reads", daemon=True).start()
    return loop


os.register_at_fork(after_in_child=_reads.cache_clear)  # the thread is not there in the child


def _positions(array: zarr.Array[Any], values: np.ndarray) -> np.ndarray:
    return layout.from_quanta(values) if _quantised(array) else values


def _quantised(array: zarr.Array[Any]) -> bool:
    return "scale" in array.attrs


def _rows_of_a_shard(array: zarr.Array[Any]) -> int:
    assert array.shards is not None, "arrays of a store have shards"
    return array.shards[0]
