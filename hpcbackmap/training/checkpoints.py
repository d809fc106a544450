"""Checkpoints that are whole or not there.

DeepSpeed writes its files in place, so a run killed in between leaves half a checkpoint. Here a checkpoint
counts only when its `manifest.json` stands in it, with the size and SHA-256 of every file; it is written
last, by rename. DeepSpeed unpickles what it loads: only files that the manifest vouches for reach it, and a
folder of checkpoints deserves the trust of a program.
"""

import hashlib
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from hpcbackmap.errors import ConfigError, InputError

__all__ = ["Checkpoints", "Progress", "first_difference", "versions", "write_json"]

log = logging.getLogger(__name__)

FORMAT = 1
KEEP = 2
MANIFEST = "manifest.json"


@dataclass
class Progress:
    """Where a training run stands; with the engine's state it is all that a resumed run needs."""

    step: int = 0
    position: int = 0
    """Global sample counter of the frame stream."""
    seconds: float = 0.0
    """Spent in training over all restarts."""
    skipped: int = 0
    """Batches and steps left out because a loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    stale: int = 0
    """Validations since the best one."""
    best: dict[str, Any] | None = None
    """Step and nats of the best validation, and the file of its weights."""


class Checkpoints:
    """The checkpoints of one stage under ``folder``. Only rank 0 calls these methods."""

    def __init__(self, folder: Path, identity: dict, may_change: frozenset[str]):
        self.folder, self.identity, self.may_change = folder, identity, may_change

    def prepare(self, tag: str) -> None:
        """An empty place for checkpoint ``tag``."""
        shutil.rmtree(self.folder / tag, ignore_errors=True)
        (self.folder / tag).mkdir(parents=True)

    def publish(self, tag: str, progress: Progress, world_size: int) -> None:
        """Vouch for the files of ``tag``, point `latest.json` at it, drop all but the last two.

        Every rank must have written its files before.
        """
        place = self.folder / tag
        files = {
            str(path.relative_to(place)): {
                "bytes": path.stat().st_size,
                "sha256": _settled_hash(path),
            }
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "format": FORMAT,
            "tag": tag,
            "world_size": world_size,
            "progress": asdict(progress),
            "identity": self.identity,
            "versions": versions(),
            "files": files,
        }
        write_json(place / MANIFEST, manifest)
        write_json(self.folder / "latest.json", {"tag": tag, "step": progress.step})
        self._prune()

    def newest(self) -> dict | None:
        """Manifest of the newest checkpoint that is intact; None where nothing was published yet.

        Raises ConfigError naming the first difference if it belongs to another training, InputError if
        checkpoints were published but none is intact.
        """
        published = self._published()
        for place in published:
            fault = self._fault(place)
            if fault is None:
                manifest = json.loads((place / MANIFEST).read_text())
                self._refuse_other_training(place, manifest)
                return manifest
            log.warning(
                "checkpoint %s is damaged (%s): falling back to the one before", place.name, fault
            )
        if published:
            raise InputError(
                f"{self.folder}: no intact checkpoint is left; remove the folder to train from the start"
            )
        return None

    def _published(self) -> list[Path]:
        places = [path.parent for path in self.folder.glob(f"step_*/{MANIFEST}")]
        return sorted(places, key=lambda place: int(place.name.removeprefix("step_")), reverse=True)

    def _fault(self, place: Path) -> str | None:
        """What is wrong with a checkpoint, in words."""
        try:
            manifest = json.loads((place / MANIFEST).read_text())
        except (OSError, ValueError):
            return f"{MANIFEST} cannot be read"
        if manifest.get("format") != FORMAT:
            return f"format {manifest.get('format')}, this version reads {FORMAT}"
        for name, expected in manifest["files"].items():
            path = place / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected["bytes"]:
                return f"{name} has {path.stat().st_size} bytes of {expected['bytes']}"
            if _hash(path) != expected["sha256"]:
                return f"{name} has changed"
        best = manifest["progress"]["best"]
        if best and not (self.folder / best["weights"]).is_file():
            return f"{best['weights']} is missing"
        return None

    def _refuse_other_training(self, place: Path, manifest: dict) -> None:
        change = first_difference(manifest["identity"], self.identity, self.may_change)
        if change:
            raise ConfigError(
                f"{place}: checkpoint of another training, {change}; undo the change, "
                "or remove the folder of the stage"
            )
        for name, now in versions().items():
            before = manifest["versions"].get(name)
            if before != now:
                log.warning("checkpoint was written with %s %s, this is %s", name, before, now)

    def _prune(self) -> None:
        newest, *older = self._published()
        keep = [newest, *islice((place for place in older if not self._fault(place)), KEEP - 1)]
        wanted = {place.name for place in keep}
        for place in keep:
            best = json.loads((place / MANIFEST).read_text())["progress"]["best"]
            wanted.add(best["weights"] if best else None)
        for path in [*self.folder.glob("step_*"), *self.folder.glob("best_*")]:
            if path.name in wanted:
                continue
            if path.is_dir():
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path)
            else:
                path.unlink()


def versions() -> dict[str, str]:
    names = ("hpcbackmap", "torch", "deepspeed", "torch_geometric")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    if name == "hpcbackmap":
        from hpcbackmap import __version__

        return __version__
    return version(name)


def first_difference(
    before: Any, now: Any, ignore: frozenset[str] = frozenset(), key: str = ""
) -> str | None:
    """``key was a, is b`` for the first leaf that differs between two JSON values."""
    if key in ignore:
        return None
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            inner = f"{key}.{name}" if key else name
            change = first_difference(before.get(name), now.get(name), ignore, inner)
            if change:
                return change
        return None
    return None if before == now else f"{key} was {_short(before)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"


def write_json(path: Path, record: dict) -> None:
    """Write whole or not at all: temporary name, flush to disk, rename."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("w") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _settled_hash(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
