"""Checkpoints that are whole or not there.

DeepSpeed writes its files in place, so a run killed in between leaves half a checkpoint. Here a checkpoint
counts only when its `manifest.json` stands in it, with the size and SHA-256 of every file and of itself; it is
written last, by rename. The files are no pickles (`state_files.py`): a checkpoint is data, whoever wrote it.
"""

import json
import logging
import re
import shutil
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hpcbackmap.config.conversion import current_identity
from hpcbackmap.runtime.differences import first_difference
from hpcbackmap.runtime.errors import ConfigError, InputError
from hpcbackmap.runtime.files import read_regular, sha256_of, write_json
from hpcbackmap.runtime.parsing import json_digest, json_value, require_keys
from hpcbackmap.runtime.versions import versions
from hpcbackmap.training.checkpoints.saving import file_record

__all__ = [
    "MANIFEST",
    "Checkpoints",
    "Progress",
    "last_published",
    "library_versions",
    "verified_manifest",
]

log = logging.getLogger(__name__)

FORMAT = 2
READ = (1, 2)
"""1: pickles of torch, and a manifest without its own SHA-256."""
PARTS = {"files": dict, "identity": dict, "versions": dict, "stage": dict, "world_size": int}
OWN = "sha256"
KEEP = 2
MANIFEST = "manifest.json"
STEP = re.compile(r"step_\d+")
OURS = re.compile(
    r"(universal_)?step_\d+|latest_universal|best_\d+\.safetensors(\.part)?|\.best_\d+\..*\.part\.safetensors"
)
"""What may be removed: a copy that a user made, say step_20.old, stays."""


@dataclass
class Progress:
    """Where a training run stands; with the engine's state it is all that a resumed run needs."""

    step: int = 0
    position: int = 0
    """Global sample counter of the frame stream."""
    seconds: float = 0.0
    """Spent in training over all restarts."""
    skipped: int = 0
    """Steps left out because a loss or gradient was not finite."""
    skipped_in_a_row: int = 0
    stale: int = 0
    """Validations since the best one."""
    start_loss: float | None = None
    """Of the validation before the first step."""
    best: dict[str, Any] | None = None
    """Step and nats of the best validation; the file of its weights and its SHA-256."""


class Checkpoints:
    """The checkpoints of one stage under ``folder``. Only rank 0 calls these methods."""

    def __init__(self, folder: Path, identity: dict[str, Any], may_change: frozenset[str]):
        self.folder, self.identity, self.may_change = folder, identity, may_change

    def prepare(self, tag: str) -> None:
        """An empty place for checkpoint ``tag``."""
        self.discard(tag)
        (self.folder / tag).mkdir(parents=True)

    def discard(self, tag: str) -> None:
        """Remove what there is of ``tag``, its manifest first."""
        place = self.folder / tag
        if place.exists():
            (place / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(place)

    def publish(
        self,
        tag: str,
        files: dict[str, dict[str, Any]],
        progress: Progress,
        world_size: int,
        stage: dict[str, Any],
    ) -> None:
        """Vouch for the files of ``tag``, point `latest.json` at it, drop all but it and the one before.

        files: size and SHA-256 by name; every rank must have written its files before. stage: describes
        the stage, so that it can be built from the checkpoint alone.
        """
        manifest = {
            "format": FORMAT,
            "tag": tag,
            "world_size": world_size,
            "progress": asdict(progress),
            "identity": self.identity,
            "versions": library_versions(),
            "stage": stage,
            "files": files,
        }
        manifest = json.loads(json.dumps(manifest))
        write_json(self.folder / tag / MANIFEST, manifest | {OWN: json_digest(manifest)})
        write_json(self.folder / "latest.json", {"tag": tag, "step": progress.step})
        self._prune(tag)

    def newest(self) -> dict[str, Any] | None:
        """Manifest of the newest checkpoint that is intact; None where nothing was published yet.

        Raises ConfigError naming the first difference if it belongs to another training, InputError if
        checkpoints were published but none is intact.
        """
        published = _published(self.folder)
        for place in published:
            fault = _fault(place)
            if fault is None:
                manifest: dict[str, Any] = json_value(read_regular(place / MANIFEST))
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

    def _refuse_other_training(self, place: Path, manifest: dict[str, Any]) -> None:
        change = first_difference(
            current_identity(manifest["identity"]), self.identity, self.may_change
        )
        if change:
            raise ConfigError(
                f"{place}: checkpoint of another training, {change}; undo the change, "
                "or remove the folder of the stage"
            )
        for name, now in library_versions().items():
            before = manifest["versions"].get(name)
            if before != now:
                log.warning("checkpoint was written with %s %s, this is %s", name, before, now)

    def _prune(self, tag: str) -> None:
        """Drop all but checkpoint ``tag``, the intact one before it, and their weights.

        Those after ``tag`` are of a run that came from a checkpoint which is damaged now.
        """
        step = _step(self.folder / tag)
        older = (place for place in _published(self.folder) if _step(place) < step)
        keep = [
            self.folder / tag,
            *islice((place for place in older if not _fault(place)), KEEP - 1),
        ]
        wanted = {place.name for place in keep}
        for place in keep:
            best = json_value(read_regular(place / MANIFEST))["progress"]["best"]
            wanted |= {best["weights"]} if best else set()
        names = [path.name for path in self.folder.iterdir() if OURS.fullmatch(path.name)]
        for name in sorted(set(names) - wanted, reverse=True):
            if (self.folder / name).is_dir():
                self.discard(name)
            else:
                (self.folder / name).unlink()


def last_published(folder: Path) -> str | None:
    """Tag of the newest checkpoint that has a manifest."""
    return next((place.name for place in _published(folder)), None)


def verified_manifest(place: Path) -> dict[str, Any]:
    """Manifest of one checkpoint whose files are those that were written. Raises InputError if not."""
    if not (place / MANIFEST).exists():
        raise InputError(
            f"{place}: no {MANIFEST}: not a checkpoint, or one that was never finished or half-copied"
        )
    fault = _fault(place, with_best=False)
    if fault:
        raise InputError(f"{place}: damaged checkpoint: {fault}")
    found: dict[str, Any] = json_value(read_regular(place / MANIFEST))
    return found


def _published(folder: Path) -> list[Path]:
    """Newest first."""
    places = [path.parent for path in folder.glob(f"step_*/{MANIFEST}")]
    ours = [place for place in places if STEP.fullmatch(place.name)]
    return sorted(ours, key=_step, reverse=True)


def _step(place: Path) -> int:
    return int(place.name.removeprefix("step_"))


def _fault(place: Path, with_best: bool = True) -> str | None:
    """What is wrong with a checkpoint, in words; ``with_best``: and with the best weights beside it."""
    try:
        manifest = json_value(read_regular(place / MANIFEST))
        if manifest.get("format") not in READ:
            return f"format {manifest.get('format')}, this version reads {READ[0]} to {READ[-1]}"
        own = manifest.pop(OWN, None)
        if (own or manifest["format"] > 1) and own != json_digest(manifest):
            return f"{MANIFEST} has changed"
        tag, files, best = manifest["tag"], manifest["files"], manifest["progress"]["best"]
        Progress(**manifest["progress"])
        require_keys(manifest, PARTS, MANIFEST)
        if best is not None:
            require_keys(best, {"weights": str}, MANIFEST)
    except (InputError, OSError, ValueError, AttributeError, LookupError, TypeError):
        return f"{MANIFEST} cannot be read"
    if STEP.fullmatch(place.name) and place.name != tag:
        return f"it is a copy of {tag}"
    there = {str(path.relative_to(place)) for path in place.rglob("[!.]*") if path.is_file()}
    strange = sorted(there - {MANIFEST, *files})
    if strange:
        return f"{strange[0]} does not belong to it"
    if with_best and best:
        weights = place.parent / best["weights"]
        if not weights.is_file():
            return f"{best['weights']} is missing"
        if "sha256" in best and sha256_of(weights) != best["sha256"]:
            return f"{best['weights']} has changed"
    return next(filter(None, (_file_fault(place, *item) for item in files.items())), None)


def _file_fault(place: Path, name: str, expected: dict[str, Any]) -> str | None:
    path = place / name
    if not path.is_file():
        return f"{name} is missing"
    if path.stat().st_size != expected["bytes"]:
        return f"{name} has {path.stat().st_size} bytes of {expected['bytes']}"
    return f"{name} has changed" if file_record(path) != expected else None


def library_versions() -> dict[str, str]:
    """Versions that decide whether a checkpoint can be read."""
    return versions("hpcbackmap", "torch", "deepspeed", "torch_geometric")
