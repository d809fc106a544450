"""What an interrupted ingest has written: a record of each finished shard, with its checksum."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hpcbackmap.runtime.files import Lock, is_url, sha256_of, write_whole, writing
from hpcbackmap.runtime.parsing import sealed, unsealed
from hpcbackmap.store.location import filesystem, reaching
from hpcbackmap.store.store import FrameStore

__all__ = [
    "Unit",
    "Written",
    "WrittenUnits",
    "all_units",
    "begin_records",
    "only_ingest",
    "record_folder",
]

log = logging.getLogger(__name__)


class Unit(NamedTuple):
    """What is written at once: shard ``number`` of a system, or pack ``number`` (system None)."""

    system: str | None
    number: int


class Written(NamedTuple):
    """frames of a unit, how many of them were made whole, and the digest of its shard of each system."""

    frames: int
    mended: int
    digests: dict[str, str]


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
    """Records of the finished units of an unfinished store."""

    def __init__(self, store: FrameStore):
        self._store = store

    def find(self, unit: Unit) -> Written | None:
        """What the record of a unit says, if its files are what they were then. Raises ResourceError."""
        try:
            with reaching(self._store.path):
                text, files = _read(self._place(unit)), self._checksums(unit)
            record = unsealed(text)
            if record["files"] == files:
                return Written(
                    int(record["frames"]), int(record["mended"]), dict(record["digests"])
                )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            pass
        log.warning("%s: damaged since it was written; written again", self._name(unit))
        return None

    def publish(self, unit: Unit, written: Written) -> None:
        """Record a unit that is on the disk. Raises OutputError."""
        with writing(self._place(unit)):
            record = written._asdict() | {"files": self._checksums(unit)}
            _write(self._place(unit), sealed(record))

    def _place(self, unit: Unit) -> str:
        return f"{record_folder(self._store.path)}/{self._name(unit)}.json"

    @staticmethod
    def _name(unit: Unit) -> str:
        return (
            f"pack.{unit.number}" if unit.system is None else f"shard.{unit.system}.{unit.number}"
        )

    def _checksums(self, unit: Unit) -> dict[str, str]:
        """Of every file of a unit, by path in the store. Raises FileNotFoundError."""
        places = set()
        for name in [unit.system] if unit.system else self._store.packs[unit.number]:
            places |= set(self._store.system(name).shard_places(unit.number))
        return {
            place.removeprefix(f"{self._store.path}/"): _checksum(place) for place in sorted(places)
        }


def record_folder(partial: str) -> str:
    """Where an unfinished store keeps its records; removed when it is whole."""
    return f"{partial}/.written"


def begin_records(partial: str) -> None:
    """A place for the records of a store whose arrays are all made. Raises OutputError."""
    with writing(partial):
        if not is_url(partial):
            Path(record_folder(partial)).mkdir()
        _write(f"{record_folder(partial)}/begun", "")


def _read(place: str) -> str:
    """Raises FileNotFoundError."""
    if is_url(place):
        files, path = filesystem(place)
        found: str = files.cat_file(path).decode()
        return found
    return Path(place).read_text()


def _write(place: str, text: str) -> None:
    """Whole or not at all."""
    if is_url(place):
        files, path = filesystem(place)
        files.pipe_file(path, text.encode())
        return
    write_whole(Path(place), text)


def _checksum(place: str) -> str:
    """SHA-256 of a file; of an object, what its store says changes with it. Raises FileNotFoundError."""
    if is_url(place):
        files, path = filesystem(place)
        return str(files.checksum(path))
    return sha256_of(place)


@contextmanager
def only_ingest(path: Path) -> Iterator[None]:
    """Hold the lock of one store to be written; it falls with the process.

    Raises ResourceError that names another ingest that holds it, OutputError.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(path.with_name(path.name + ".lock"), path)
        lock.sign()
    try:
        yield
    finally:
        lock.path.unlink(missing_ok=True)
        lock.close()
