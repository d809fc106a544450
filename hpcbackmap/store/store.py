"""The frame store: positions of every resolution of one or more systems, in one Zarr group.

A system has its own arrays, cut into shards (the unit of writing), or, if it is small, a place in a pack:
arrays that hold many systems one after another, each written whole. `StoredSystem.read` hides which.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import zarr

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, IncompleteError, InputError, OutputError
from hpcbackmap.runtime.files import flush, writing
from hpcbackmap.store import layout
from hpcbackmap.store.arrays import create_arrays
from hpcbackmap.store.location import exists, require_backend, without_slash
from hpcbackmap.store.shards import ShardedArrays
from hpcbackmap.store.system import StoredSystem

__all__ = ["FrameStore", "create_store", "open_store"]


def open_store(path: str | Path, incomplete_ok: bool = False) -> "FrameStore":
    """Open a store for reading, or, with ``incomplete_ok``, one that is still being written, for writing.

    path: folder, or a URL that zarr understands.
    Raises InputError if it is missing, no frame store, of a newer format, or incomplete.
    """
    path = without_slash(path)
    try:
        if not exists(path):
            raise InputError(
                f"{path}: no such frame store; `hpcbackmap ingest` and `hpcbackmap backmap` make them"
            )
        root = zarr.open_group(path, mode="r+" if incomplete_ok else "r")
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: {error.strerror or error}") from None
        raise InputError(f"{path}: not a frame store (no Zarr group that can be read)") from None
    attributes = dict(root.attrs)
    if attributes.get("format") != layout.FORMAT:
        raise InputError(f"{path}: a Zarr group, but not a frame store of this package")
    version = attributes["format_version"]
    if version > layout.VERSION:
        raise InputError(
            f"{path}: frame store of format {version}, this version of hpcbackmap reads up to "
            f"{layout.VERSION}; update hpcbackmap"
        )
    if not attributes["complete"] and not incomplete_ok:
        raise InputError(f"{path}: unfinished, what wrote it has stopped; run that command again")
    return FrameStore(path, root)


def create_store(
    path: str | Path,
    ladders: dict[str, Ladder],
    n_frames: dict[str, int],
    resolutions: list[str],
    config: StoreConfig,
    provenance: dict,
    shard_frames: int | None = None,
    observables: dict[str, str] | None = None,
    sources: dict[str, list[tuple[str, int, int]]] | None = None,
    packed: bool = False,
) -> "FrameStore":
    """Create an incomplete store, ready for `StoredSystem.write_shard`; other ranks then open it with
    ``open_store(path, incomplete_ok=True)``.

    ladders, n_frames: by system. resolutions: those to store, fine to coarse. provenance: JSON-ready; its
    ``versions`` do not count in the digest. shard_frames: instead of what ``shard_mb`` gives.
    observables: numpy type names of per-frame numbers; ``step`` and ``time`` (ps) become the positions'
    own. sources: (source file, first frame, frame after the last) of each system; default: one source
    of the system's name. packed: put systems below ``chunk_mb`` together in packs, each to be written
    whole with `FrameStore.write_pack`.
    Raises ConfigError for a system name that cannot be a folder name, OutputError if ``path`` exists or
    cannot be written.
    """
    if "://" not in str(path) and Path(path).exists():
        raise OutputError(f"{path}: already exists")
    for name in ladders:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ConfigError(f"system {name!r}: use letters, digits, '.', '_' and '-' in its name")
    blob, places = layout.pack_ladders(list(ladders.values()))
    records = []
    for (name, ladder), place in zip(ladders.items(), places, strict=True):
        particles = [ladder.n_particles(resolution) for resolution in resolutions]
        frames = n_frames[name]
        parts = sources[name] if sources else [(name, 0, frames)]
        records.append(
            {
                "name": name,
                "frames": frames,
                "particles": particles,
                "shard_frames": shard_frames or layout.shard_frames(particles[0], frames, config),
                "sources": [list(part) for part in parts],
                "ladder": list(place),
                "pack": None,
            }
        )
    packs = _assign_packs(records, config) if packed else 0
    attributes = {
        "format": layout.FORMAT,
        "format_version": layout.VERSION,
        "complete": False,
        "resolutions": list(resolutions),
        "observables": {name: np.dtype(kind).name for name, kind in (observables or {}).items()},
        "quantised": config.quantise,
        "packs": packs,
        "systems": records,
        "provenance": provenance,
    }
    attributes["digest"] = _content_digest(attributes, blob)
    require_backend(path)
    with writing(path):
        if "://" not in str(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        root = zarr.create_group(str(path), attributes=attributes)
        create_arrays(root, attributes, config, blob)
    return FrameStore(str(path), root)


class FrameStore:
    """An open store. Made by `open_store` and `create_store`.

    path: as it was given. resolutions: stored ones, fine to coarse. systems: names in order.
    attributes: format, provenance and bookkeeping, JSON-ready.
    digest: SHA-256 of layout, ladders, sources and input hashes, fixed when the store was created.
    """

    def __init__(self, path: str, root: zarr.Group):
        self.path = path
        self.attributes = dict(root.attrs)
        self.resolutions: tuple[str, ...] = tuple(self.attributes["resolutions"])
        self.digest: str = self.attributes["digest"]
        self._root = root
        self._arrays = ShardedArrays(path, root)
        self._systems: dict[str, StoredSystem] = {}
        self._packs: list[list[StoredSystem]] = [[] for _ in range(self.attributes["packs"])]
        first_frame = 0
        for record in self.attributes["systems"]:
            pack = [] if record["pack"] is None else self._packs[record["pack"]]
            before = pack[-1] if pack else None
            system = StoredSystem(self._arrays, record, self.attributes, first_frame, before)
            pack.append(system)
            self._systems[system.name] = system
            first_frame += system.n_frames

    @property
    def complete(self) -> bool:
        return self.attributes["complete"]

    @property
    def systems(self) -> tuple[str, ...]:
        return tuple(self._systems)

    @property
    def packs(self) -> list[list[str]]:
        """Names of the systems in each pack."""
        return [[system.name for system in pack] for pack in self._packs]

    def system(self, name: str) -> StoredSystem:
        if name not in self._systems:
            raise InputError(
                f"{self.path}: no system {name!r}; there are {', '.join(self.systems)}"
            )
        return self._systems[name]

    def read_together(self, pieces: list[tuple[str, str, int, int]]) -> list[np.ndarray]:
        """What `StoredSystem.read` gives for every (system, resolution, start, stop), in less time."""
        places = [self.system(name).place(*frames) for name, *frames in pieces]
        return [
            rows.reshape(-1, self.system(name).n_particles(resolution), 3)
            for (name, resolution, *_), rows in zip(
                pieces, self._arrays.read_together(places), strict=True
            )
        ]

    def write_pack(
        self, pack: int, positions: dict[str, dict], observables: dict[str, dict]
    ) -> None:
        """Write one pack whole: {system: {resolution: [n, particles, 3]}}, {system: {observable: [n]}}.

        Raises OutputError if it cannot be written.
        """
        members = self.packs[pack]
        for resolution in self.resolutions:
            rows = [positions[name][resolution].reshape(-1, 3) for name in members]
            path = f"packs/{pack}/{layout.position_path(resolution)}"
            self._arrays.write(path, 0, np.concatenate(rows))
        for name in self.attributes["observables"]:
            values = np.concatenate([observables[member][name] for member in members])
            path = layout.observable_path(name, self.resolutions[0])
            self._arrays.write(f"packs/{pack}/{path}", 0, values)

    def mark_complete(self, **facts) -> None:
        """Declare the store finished; only then does `open_store` open it for reading.

        facts: further attributes, JSON-ready, that only the whole store can tell; not in the digest.
        Raises IncompleteError that names the first shard that was never written.
        """
        for system in self._systems.values():
            for shard in range(system.n_shards):
                if not system.shard_exists(shard):
                    raise IncompleteError(
                        f"{self.path}: shard {shard} of system {system.name} was never written"
                    )
        with writing(self.path):
            self._root.attrs.update(facts | {"complete": True})
            self.attributes.update(facts | {"complete": True})
            if self._arrays.folder is not None:
                flush(self._arrays.folder / "zarr.json")
                flush(self._arrays.folder)


def _assign_packs(records: list[dict], config: StoreConfig) -> int:
    """Give every small system its pack, in order; a pack holds up to ``shard_mb``. Returns their number."""
    sizes = [12e-6 * record["frames"] * record["particles"][0] for record in records]
    small = [i for i, megabytes in enumerate(sizes) if megabytes < config.chunk_mb]
    if len(small) < 2:
        return 0
    packs, filled = 1, 0.0
    for i in small:
        if filled and filled + sizes[i] > config.shard_mb:
            packs, filled = packs + 1, 0.0
        filled += sizes[i]
        records[i]["pack"] = packs - 1
        records[i]["shard_frames"] = records[i]["frames"]
    return packs


def _content_digest(attributes: dict, ladders: np.ndarray) -> str:
    """SHA-256 of what a store is made of; library versions do not count."""
    provenance = {
        key: value for key, value in attributes["provenance"].items() if key != "versions"
    }
    record = {
        key: attributes[key] for key in ("systems", "resolutions", "observables", "quantised")
    }
    record |= {"provenance": provenance, "ladders": hashlib.sha256(ladders.tobytes()).hexdigest()}
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
