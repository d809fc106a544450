"""What an interrupted ingest has written: a record beside each finished shard, with its checksum."""

import fcntl
import hashlib
import json
import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hpcbackmap.errors import ResourceError
from hpcbackmap.frames.place import is_url
from hpcbackmap.frames.shards import flush, writing
from hpcbackmap.frames.store import FrameStore

__all__ = ["Unit", "Written", "WrittenUnits", "all_units", "only_ingest", "record_folder"]

log = logging.getLogger(__name__)


class Unit(NamedTuple):
    """What is written at once: shard ``number`` of a system, or pack ``number`` (system None)."""

    system: str | None
    number: int


class Written(NamedTuple):
    """frames of a unit, and how many of them were made whole."""

    frames: int
    mended: int


def all_units(store: FrameStore) -> list[Unit]:
    """Units of a store, systems with shards of their own first."""
    packed = {name for pack in store.packs for name in pack}
    shards = [
        Unit(name, shard)
        for name in store.systems
        if name not in packed
        for shard in range(store.system(name).n_shards)
    ]
    return shards + [Unit(None, pack) for pack in range(len(store.packs))]


class WrittenUnits:
    """Records of the finished units of a store in a folder; object storage has none."""

    def __init__(self, store: FrameStore):
        self._store = store
        self._folder = None if is_url(store.path) else record_folder(store.path)

    def find(self, unit: Unit) -> Written | None:
        """What the record of a unit says, if its files are what they were then."""
        if self._folder is None:
            return None
        try:
            record = json.loads(self._path(unit).read_text())
            if record["files"] == self._checksums(unit):
                return Written(record["frames"], record["mended"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError):
            pass
        log.warning("%s: damaged since it was written; written again", self._name(unit))
        return None

    def publish(self, unit: Unit, written: Written) -> None:
        """Record a unit that is on the disk. Raises OutputError."""
        if self._folder is None:
            return
        record = written._asdict() | {"files": self._checksums(unit)}
        path = self._path(unit)
        scratch = path.with_suffix(".part")
        with writing(path):
            scratch.write_text(json.dumps(record))
            flush(scratch)
            scratch.rename(path)

    def _path(self, unit: Unit) -> Path:
        return self._folder / f"{self._name(unit)}.json"

    @staticmethod
    def _name(unit: Unit) -> str:
        return (
            f"pack.{unit.number}" if unit.system is None else f"shard.{unit.system}.{unit.number}"
        )

    def _checksums(self, unit: Unit) -> dict[str, str]:
        """SHA-256 of every file of a unit. Raises FileNotFoundError."""
        files = set()
        for name in [unit.system] if unit.system else self._store.packs[unit.number]:
            files |= set(self._store.system(name).shard_files(unit.number))
        checksums = {}
        for path in sorted(files):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            checksums[str(path.relative_to(self._store.path))] = digest
        return checksums


def record_folder(partial: str) -> Path:
    """Where an unfinished store keeps its records; removed when it is whole."""
    return Path(partial) / ".written"


@contextmanager
def only_ingest(path: Path):
    """Hold the lock of one store to be written; it falls with the process.

    Raises ResourceError if another ingest holds it.
    """
    lock = path.with_name(path.name + ".lock")
    with writing(lock):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                f"{path}: another ingest is writing it; wait for it, or stop it"
            ) from None
        except OSError as error:
            log.warning(
                "%s: no locks here (%s); start one ingest at a time", lock, os.strerror(error.errno)
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
