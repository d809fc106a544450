"""Reading a whole store to know that it is whole: every claim, every checksum, every count."""

import hashlib
import logging
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import is_url, read_regular, reason
from hpcbackmap.runtime.mpi import Comm, raise_together
from hpcbackmap.runtime.parsing import unsealed
from hpcbackmap.store.store import FrameStore, open_store
from hpcbackmap.store.system import shard_digest

__all__ = ["verify_store"]

log = logging.getLogger(__name__)

SHOWN = 5
"""Damaged places that the error names."""


def verify_store(path: str | Path, comm: Comm) -> dict[str, Any]:
    """Read every shard of every array of a store; the ranks of ``comm`` share them. Collective.

    Everything that the store vouches for is computed again: its attributes and ladders (digest), shape, type,
    unit, scale and shards of every array, and the SHA-256 of every shard from when the store was finished
    (``hashes``; stores of format 1 have none, which is said).
    Returns counts: systems, frames, frames without numbers (quarantined ones of a backmapped store), shards,
    bytes of positions and observables; content: SHA-256 of all of them, the same for stores that hold the same
    numbers in shards of one size. Raises InputError that names what is damaged, changed or missing.
    """
    store = open_store(path, shards_missing_ok=True)
    _raise_damage(comm, _claims(store) + _records(path) if comm.rank == 0 else [])
    kept = store.read_checksums()
    shards, damaged = _shards(store)
    empty, read, digests = 0, 0, []
    damaged = damaged if comm.rank == 0 else []
    for name, shard, number in shards[comm.rank :: comm.size]:
        try:
            here, size, digest = _read_shard(store, name, shard)
        except InputError as error:
            damaged.append(str(error))
            continue
        if kept is not None and digest != kept[number]:
            damaged.append(
                f"{store.path}: shard {shard} of system {name} holds other numbers than were written"
            )
        empty, read = empty + here, read + size
        digests.append(bytes.fromhex(digest))
    _raise_damage(comm, damaged)
    parts = comm.bcast(comm.gather(digests))
    in_order = (parts[i % comm.size][i // comm.size] for i in range(len(shards)))
    if kept is None and comm.rank == 0:
        log.warning(
            "%s: of format 1, which keeps no hashes: numbers changed with care are not noticed",
            path,
        )
    return {
        "store": str(path),
        "status": "whole",
        "digest": store.digest,
        "content": hashlib.sha256(b"".join(in_order)).hexdigest(),
        "hashes": "none (format 1)" if kept is None else "as written",
        "systems": len(store.systems),
        "frames": sum(store.system(name).n_frames for name in store.systems),
        "frames_without_numbers": comm.allreduce(empty),
        "shards": len(shards),
        "bytes": comm.allreduce(read),
    }


def _claims(store: FrameStore) -> list[str]:
    """What is wrong with ladders, hashes and arrays; no frame is read."""
    checks = [store.read_ladders, store.read_checksums, store.open_arrays]
    checks += [partial(getattr, store.system(name), "ladder") for name in store.systems]
    damaged = []
    for check in checks:
        try:
            check()
        except InputError as error:
            damaged.append(str(error))
    return damaged


def _records(path: str | Path) -> list[str]:
    """Records of shards that a backmapping has left in its output and that are not what it wrote."""
    damaged = []
    for record in () if is_url(path) else sorted(Path(path).glob(".shards/*.json")):
        try:
            unsealed(read_regular(record))
        except (InputError, OSError, ValueError) as error:
            damaged.append(f"{record}: damaged record of a shard ({reason(error)})")
    return damaged


def _shards(store: FrameStore) -> tuple[list[tuple[str, int, int]], list[str]]:
    """System, number and number in the store of the shards that have a file; the first without, in words."""
    found, missing, before = [], [], 0
    for name in store.systems:
        system = store.system(name)
        there = system.shards_there()
        found += [(name, shard, before + shard) for shard in sorted(there)]
        if len(there) < system.n_shards:
            gaps = islice((n for n in range(system.n_shards) if n not in there), SHOWN)
            missing += [f"{store.path}: shard {n} of {system.finest_path} is missing" for n in gaps]
        before += system.n_shards
    return found, missing


def _raise_damage(comm: Comm, damaged: list[str]) -> None:
    """Raises InputError on all ranks if one of them found something."""
    found = [place for part in comm.bcast(comm.gather(damaged)) for place in part]
    error = None
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        error = InputError("; ".join(found[:SHOWN]) + more)
    raise_together(comm, error)


def _read_shard(store: FrameStore, name: str, shard: int) -> tuple[int, int, str]:
    """Frames without numbers at the finest resolution, bytes, and the SHA-256 of all."""
    empty, size = 0, 0

    def arrays() -> Iterator[np.ndarray]:
        nonlocal empty, size
        for number, values in enumerate(store.system(name).numbers(shard)):
            if number == 0:
                empty = int((~np.isfinite(values).all(axis=(1, 2))).sum())
            size += values.nbytes
            yield values

    digest = shard_digest(arrays())
    return empty, size, digest
