"""The frame store: positions of every resolution of one or more systems, in one Zarr group.

A system has its own arrays, cut into shards (the unit of writing), or, if it is small, a place in a pack:
arrays that hold many systems one after another, each written whole. `StoredSystem.read` hides which.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zarr

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.errors import ConfigError, IncompleteError, InputError, OutputError
from hpcbackmap.runtime.files import flush, is_url, reason, require_file, writing
from hpcbackmap.store import layout
from hpcbackmap.store.arrays import CHECKSUMS, create_arrays, create_checksums
from hpcbackmap.store.claims import (
    HASHED_SINCE,
    RECOPY,
    SYSTEM_NAME,
    array_claims,
    check_attributes,
    content_digest,
)
from hpcbackmap.store.location import (
    METADATA_ERRORS,
    exists,
    reaching,
    require_backend,
    without_slash,
)
from hpcbackmap.store.shards import ShardedArrays
from hpcbackmap.store.system import StoredSystem, shard_digest
from hpcbackmap.trajectories.units import frame_bytes

if TYPE_CHECKING:
    from hpcbackmap.store.attributes import Attributes

__all__ = ["FrameStore", "create_store", "open_store"]


def open_store(
    path: str | Path, incomplete_ok: bool = False, shards_missing_ok: bool = False
) -> "FrameStore":
    """Open a store for reading, or, with ``incomplete_ok``, one that is still being written, for writing.

    path: folder, or a URL that zarr understands. Of a finished store in a folder the last shard of every
    system has to be there, unless ``shards_missing_ok``: frames that no file can hold are not believed.
    Raises InputError if it is missing, no frame store, of a newer format, incomplete, or if its attributes
    are not those it was made with.
    """
    path = without_slash(path)
    try:
        if not exists(path):
            raise InputError(
                f"{path}: no such frame store; `hpcbackmap ingest` and `hpcbackmap backmap` make them"
            )
        if not is_url(path):
            require_file(Path(path) / "zarr.json")
        with reaching(path, passing=METADATA_ERRORS):
            root = zarr.open_group(path, mode="r+" if incomplete_ok else "r")
            attributes = dict(root.attrs)
    except PermissionError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except (OSError, *METADATA_ERRORS):
        raise InputError(f"{path}: not a frame store (no Zarr group that can be read)") from None
    check_attributes(path, attributes)
    if not attributes["complete"] and not incomplete_ok:
        raise InputError(f"{path}: unfinished, what wrote it has stopped; run that command again")
    store = FrameStore(path, root)
    if not (incomplete_ok or shards_missing_ok or is_url(path)):
        store.require_last_shards()
    return store


def create_store(
    path: str | Path,
    ladders: dict[str, Ladder],
    n_frames: dict[str, int],
    resolutions: list[str],
    config: StoreConfig,
    provenance: dict[str, Any],
    shard_frames: int | None = None,
    observables: dict[str, str] | None = None,
    residue_values: dict[str, str] | None = None,
    sources: dict[str, list[tuple[str, int, int]]] | None = None,
    packed: bool = False,
) -> "FrameStore":
    """Create an incomplete store, ready for `StoredSystem.write_shard`; other ranks then open it with
    ``open_store(path, incomplete_ok=True)``.

    ladders, n_frames: by system. resolutions: those to store, fine to coarse. provenance: JSON-ready; its
    ``versions`` do not count in the digest. shard_frames: instead of what ``shard_mb`` gives.
    observables: numpy type names of per-frame numbers; ``step`` and ``time`` (ps) become the positions'
    own. residue_values: the same of numbers of residues; not in packs. sources: (source file, first frame,
    frame after the last) of each system; default: one source of the system's name.
    packed: put systems below ``chunk_mb`` together in packs, each to be written whole with
    `FrameStore.write_pack`.
    Raises ConfigError for a system name that cannot be a folder name, OutputError if ``path`` exists or
    cannot be written.
    """
    if "://" not in str(path) and Path(path).exists():
        raise OutputError(f"{path}: already exists")
    for name in ladders:
        if not re.fullmatch(SYSTEM_NAME, name):
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
    attributes: dict[str, Any] = {
        "format": layout.FORMAT,
        "format_version": layout.VERSION if residue_values else layout.PLAIN_VERSION,
        "complete": False,
        "resolutions": list(resolutions),
        "observables": {name: np.dtype(kind).name for name, kind in (observables or {}).items()},
        "quantised": config.quantise,
        "packs": packs,
        "systems": records,
        "provenance": provenance,
    }
    if residue_values:
        attributes["residue_values"] = {
            k: np.dtype(kind).name for k, kind in residue_values.items()
        }
        for record, ladder in zip(records, ladders.values(), strict=True):
            record["residues"] = ladder.topology.n_residues
    attributes["ladders_sha256"] = hashlib.sha256(blob.tobytes()).hexdigest()
    attributes = json.loads(json.dumps(attributes))
    attributes["digest"] = content_digest(attributes, attributes["ladders_sha256"])
    require_backend(path)
    with writing(path):
        if "://" not in str(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        root = zarr.create_group(str(path), attributes=attributes)
        create_arrays(root, cast("Attributes", attributes), config, blob)
    return FrameStore(str(path), root)


class FrameStore:
    """An open store. Made by `open_store` and `create_store`.

    path: as it was given. resolutions: stored ones, fine to coarse. systems: names in order.
    attributes: format, provenance and bookkeeping, JSON-ready.
    digest: SHA-256 of layout, ladders, sources and input hashes, fixed when the store was created.
    """

    def __init__(self, path: str, root: zarr.Group):
        self.path = path
        self.attributes: Attributes = cast("Attributes", dict(root.attrs))
        self.resolutions: tuple[str, ...] = tuple(self.attributes["resolutions"])
        self.digest: str = self.attributes["digest"]
        self._root = root
        self._arrays = ShardedArrays(path, root, array_claims(self.attributes))
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
        places = [
            self.system(name).place(resolution, start, stop)
            for name, resolution, start, stop in pieces
        ]
        return [
            rows.reshape(-1, self.system(name).n_particles(resolution), 3)
            for (name, resolution, *_), rows in zip(
                pieces, self._arrays.read_together(places), strict=True
            )
        ]

    def write_pack(
        self,
        pack: int,
        positions: dict[str, dict[str, Any]],
        observables: dict[str, dict[str, Any]],
    ) -> dict[str, str]:
        """Write one pack whole: {system: {resolution: [n, particles, 3]}}, {system: {observable: [n]}}.

        Returns the digest of each system's only shard. Raises OutputError if it cannot be written.
        """
        members = self._packs[pack]
        parts: dict[str, list[np.ndarray]] = {system.name: [] for system in members}
        for resolution in self.resolutions:
            rows = [positions[system.name][resolution].reshape(-1, 3) for system in members]
            path = f"packs/{pack}/{layout.position_path(resolution)}"
            _share_out(self._arrays.write(path, 0, np.concatenate(rows)), rows, parts)
        for name in self.attributes["observables"]:
            values = [observables[system.name][name] for system in members]
            path = f"packs/{pack}/{layout.observable_path(name, self.resolutions[0])}"
            _share_out(self._arrays.write(path, 0, np.concatenate(values)), values, parts)
        for system in members:
            system.written[0] = shard_digest(parts[system.name])
        return {system.name: system.written[0] for system in members}

    def require_last_shards(self) -> None:
        """Raises InputError if the last shard of a system of a finished store is missing."""
        for system in self._systems.values():
            if not Path(system.last_place).exists():
                last = f"shard {system.n_shards - 1} of {system.finest_path}"
                raise InputError(
                    f"{self.path}: {last} is missing; `hpcbackmap verify` names all that is; {RECOPY}"
                )

    def open_arrays(self) -> None:
        """Raises InputError for an array that is missing or not what the attributes promise."""
        for path in self._arrays.claims:
            self._arrays.array(path)

    def read_ladders(self) -> np.ndarray:
        """The array of all ladders, uint8. Raises InputError if it is not what it was when it was written."""
        values = self._arrays.read("ladders", 0, self._arrays.array("ladders").shape[0])
        found = hashlib.sha256(values.tobytes()).hexdigest()
        if content_digest(self.attributes, found) != self.digest:
            raise InputError(
                f"{self.path}: attributes or ladders have changed since the store was made"
            )
        return values

    def read_checksums(self) -> list[str] | None:
        """Digest of every shard of every system, in order, as it was when the store was finished.

        None where none were kept (format 1). Raises InputError if they are damaged.
        """
        if self.attributes["format_version"] < HASHED_SINCE:
            return None
        array = self._arrays.array(CHECKSUMS)
        expected = (sum(system.n_shards for system in self._systems.values()), 32)
        if array.shape != expected or array.dtype != np.uint8:
            raise InputError(f"{self.path}/{CHECKSUMS}/zarr.json: not a SHA-256 of every shard")
        try:
            values = np.asarray(array[:])
        except Exception as error:  # checksum, codec and file errors have no common class in zarr
            raise InputError(f"{self.path}/{CHECKSUMS}: damaged ({reason(error)})") from None
        if hashlib.sha256(values.tobytes()).hexdigest() != self.attributes["content"]:
            raise InputError(f"{self.path}/{CHECKSUMS}: missing or changed since it was written")
        return [row.tobytes().hex() for row in values]

    def mark_complete(
        self, checksums: dict[tuple[str, int], str] | None = None, **facts: Any
    ) -> None:
        """Declare the store finished; only then does `open_store` open it for reading.

        checksums: `StoredSystem.digest` by system and shard, of those that others wrote; what is neither there
        nor was written through this object is read. facts: further attributes, JSON-ready, that only the whole
        store can tell; not in the digest.
        Raises IncompleteError that names the first shard that was never written.
        """
        for system in self._systems.values():
            for shard in range(system.n_shards):
                if not system.shard_exists(shard):
                    raise IncompleteError(
                        f"{self.path}: shard {shard} of system {system.name} was never written"
                    )
        facts = facts | {"complete": True}
        hashes = None
        if self.attributes["format_version"] >= HASHED_SINCE:
            hashes = self._checksums(checksums or {})
            facts["content"] = hashlib.sha256(hashes.tobytes()).hexdigest()
        if facts.items() <= self.attributes.items():
            return
        with writing(self.path):
            if hashes is not None:
                self._keep_checksums(hashes)
            self._root.attrs.update(facts)
            self.attributes.update(cast("Attributes", facts))
            if self._arrays.folder is not None:
                flush(self._arrays.folder / "zarr.json")
                flush(self._arrays.folder)

    def _checksums(self, given: dict[tuple[str, int], str]) -> np.ndarray:
        """The digest of every shard, uint8 [shards, 32]."""
        found = [
            given.get((name, shard)) or system.written.get(shard) or system.digest(shard)
            for name, system in self._systems.items()
            for shard in range(system.n_shards)
        ]
        return np.frombuffer(bytes.fromhex("".join(found)), dtype=np.uint8).reshape(-1, 32)

    def _keep_checksums(self, values: np.ndarray) -> None:
        create_checksums(self._root, values)
        if self._arrays.folder is not None:
            for file in (self._arrays.folder / CHECKSUMS).rglob("*"):
                flush(file)


def _share_out(written: np.ndarray, rows: list[np.ndarray], parts: dict[str, list[Any]]) -> None:
    """Give every system its rows of what was written for all of a pack."""
    ends = np.cumsum([len(part) for part in rows])
    for own, piece in zip(parts.values(), np.split(written, ends[:-1]), strict=True):
        own.append(piece)


def _assign_packs(records: list[dict[str, Any]], config: StoreConfig) -> int:
    """Give every small system its pack, in order; a pack holds up to ``shard_mb``. Returns their number."""
    sizes = [1e-6 * frame_bytes(record["particles"][0]) * record["frames"] for record in records]
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
