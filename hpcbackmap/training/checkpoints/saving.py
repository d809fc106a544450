"""The engine's state on disk: every rank writes its part, and all learn whether all could."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbackmap.runtime.errors import InputError, OutputError
from hpcbackmap.runtime.files import flush, sha256_of
from hpcbackmap.training.checkpoints.state_files import without_pickles, write_state
from hpcbackmap.training.ranks.world import World, come_to

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

__all__ = ["file_record", "load_engine", "save_engine"]


def save_engine(
    engine: "DeepSpeedEngine", folder: Path, tag: str, world: World
) -> dict[str, dict[str, Any]]:
    """Write checkpoint ``tag`` below ``folder``; returns size and SHA-256 of every file of every rank.

    Files are on the disk, not only in its cache, when it returns. Raises OutputError on all ranks where one
    could not write.
    """
    come_to("checkpoint")
    writer = _Writer(engine.checkpoint_engine, folder / tag)
    engine.checkpoint_engine = writer
    engine._copy_recovery_script = lambda _: None  # a script for folders that have no manifest
    try:
        engine.save_checkpoint(str(folder), tag=tag, save_latest=False)
    finally:
        engine.checkpoint_engine = writer.wrapped
    come_to("checkpoint written")
    parts = _gathered((writer.files, writer.error), world)
    for rank, (_, error) in enumerate(parts):
        if error:
            who = f"rank {rank}: " if world.size > 1 else ""
            raise OutputError(f"{folder / tag}: {who}{error}")
    return {name: record for files, _ in parts for name, record in files.items()}


def load_engine(engine: "DeepSpeedEngine", folder: Path, tag: str) -> None:
    """Bring the engine to the state of a checkpoint; nothing is unpickled.

    Raises InputError if DeepSpeed does not take it.
    """
    with without_pickles():
        path, _ = engine.load_checkpoint(str(folder), tag=tag)
    if path is None:
        raise InputError(f"{folder / tag}: DeepSpeed finds no checkpoint there")


def file_record(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


class _Writer:
    """DeepSpeed's checkpoint engine, that remembers what it wrote and does not raise when it cannot.

    After writing, the ranks of DeepSpeed meet again: one whose disk is full has to come there too.
    """

    def __init__(self, wrapped: Any, place: Path):
        self.wrapped, self.place = wrapped, place
        self.files: dict[str, dict[str, Any]] = {}
        self.error: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def save(self, state_dict: dict[str, Any], path: str) -> None:
        try:
            write_state(state_dict, path)
            flush(Path(path))
            self.files[str(Path(path).relative_to(self.place))] = file_record(Path(path))
        except OSError as error:
            self.error = str(error.strerror or error)
        except TypeError as error:  # a state of another DeepSpeed
            self.error = str(error)
        except RuntimeError as error:  # of safetensors
            free = shutil.disk_usage(self.place).free / 2**20
            reason = str(error).splitlines()[0]
            self.error = f"cannot write {Path(path).name}, {free:.0f} MB are free ({reason})"


def _gathered(part: tuple[Any, ...], world: World) -> list[tuple[Any, ...]]:
    if world.size == 1:
        return [part]
    import torch

    parts: list[Any] = [None] * world.size
    torch.distributed.all_gather_object(parts, part)
    return parts
