"""A checkpoint for another number of ranks, by way of DeepSpeed's universal checkpoint."""

import argparse
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import reason
from hpcbackmap.training.checkpoints.state_files import without_pickles
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
    """By DeepSpeed's converter, on files that are no pickles.

    With one worker it forks nothing, which a process with gloo threads must not.
    """
    from deepspeed.checkpoint import ds_to_universal

    shutil.rmtree(target, ignore_errors=True)
    wanted = argparse.Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    ds_to_universal.tqdm = SimpleNamespace(tqdm=lambda work: work)  # no bars among the log's lines
    try:
        with without_pickles(), redirect_stdout(io.StringIO()):
            ds_to_universal.main(wanted)
    except Exception as error:  # whatever the converter meets in a folder that it does not know
        raise InputError(
            f"{source}: cannot be converted for another number of ranks ({reason(error)}); continue on as "
            "many as before"
        ) from None
