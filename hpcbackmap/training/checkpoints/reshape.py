"""A checkpoint for another number of ranks, by way of DeepSpeed's universal checkpoint."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.training.ranks.world import World, on_rank_zero

__all__ = ["reshaped"]


@contextmanager
def reshaped(folder: Path, tag: str, world: World) -> Iterator[str]:
    """Tag of a temporary copy of checkpoint ``tag`` that any number of ranks can load.

    For ZeRO 1 to 3; the engine's configuration needs ``checkpoint.load_universal``. Without ZeRO a
    checkpoint suits any number of ranks as it is. What a killed run leaves of the copy goes with the next
    checkpoint.
    Raises InputError where DeepSpeed cannot convert it.
    """
    universal = f"universal_{tag}"
    on_rank_zero(world, lambda: _convert(folder / tag, folder / universal))
    yield universal
    on_rank_zero(world, lambda: _remove(folder, universal))


def _remove(folder: Path, universal: str) -> None:
    shutil.rmtree(folder / universal)
    (folder / "latest_universal").unlink(missing_ok=True)


def _convert(source: Path, target: Path) -> None:
    """In a process of its own: the converter forks, which a process with gloo threads must not."""
    shutil.rmtree(target, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "hpcbackmap.training.checkpoints.universal",
        "--inject_missing_state",
    ]
    command += ["--input_folder", str(source), "--output_folder", str(target)]
    command += ["--num_extract_workers", "1", "--num_merge_workers", "1"]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        reason = (finished.stderr.strip() or "no message").splitlines()[-1]
        raise InputError(
            f"{source}: cannot be converted for another number of ranks ({reason}); continue on as many "
            "as before"
        )
