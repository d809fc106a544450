"""Reading a whole store to know that it is whole: every checksum, every count."""

import hashlib
from pathlib import Path

import numpy as np

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.mpi import raise_together
from hpcbackmap.store.store import FrameStore, open_store

__all__ = ["verify_store"]

SHOWN = 5
"""Damaged places that the error names."""


def verify_store(path: str | Path, comm) -> dict:
    """Read every shard of every array of a store; the ranks of ``comm`` share them. Collective.

    Returns counts: systems, frames, frames without numbers (quarantined ones of a backmapped store), shards,
    bytes of positions and observables; content: SHA-256 of all of them, the same for stores that hold the same
    numbers in shards of one size. Raises InputError that names damaged or missing shards.
    """
    store = open_store(path)
    shards = [
        (name, shard) for name in store.systems for shard in range(store.system(name).n_shards)
    ]
    empty, read, digests, damaged = 0, 0, [], []
    for name, shard in shards[comm.rank :: comm.size]:
        try:
            here, size, digest = _read_shard(store, name, shard)
        except InputError as error:
            damaged.append(str(error))
            continue
        empty, read = empty + here, read + size
        digests.append(digest)
    found = [place for part in comm.bcast(comm.gather(damaged)) for place in part]
    error = None
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        error = InputError("; ".join(found[:SHOWN]) + more)
    raise_together(comm, error)
    parts = comm.bcast(comm.gather(digests))
    in_order = (parts[i % comm.size][i // comm.size] for i in range(len(shards)))
    return {
        "store": str(path),
        "status": "whole",
        "digest": store.digest,
        "content": hashlib.sha256(b"".join(in_order)).hexdigest(),
        "systems": len(store.systems),
        "frames": sum(store.system(name).n_frames for name in store.systems),
        "frames_without_numbers": comm.allreduce(empty),
        "shards": len(shards),
        "bytes": comm.allreduce(read),
    }


def _read_shard(store: FrameStore, name: str, shard: int) -> tuple[int, int, bytes]:
    """Frames without numbers at the finest resolution, bytes, and the SHA-256 of all."""
    system = store.system(name)
    start = shard * system.shard_frames
    stop = min(system.n_frames, start + system.shard_frames)
    empty, size, digest = 0, 0, hashlib.sha256()
    for resolution in store.resolutions:
        positions = system.read(resolution, start, stop)
        if resolution == store.resolutions[0]:
            empty = int((~np.isfinite(positions).all(axis=(1, 2))).sum())
        size += positions.nbytes
        digest.update(positions)
    for observable in system.observables:
        values = system.read_observable(observable, start, stop)
        size += values.nbytes
        digest.update(values)
    return empty, size, digest.digest()
