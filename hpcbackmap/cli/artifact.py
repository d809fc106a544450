"""The command `artifact`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import Json
from hpcbackmap.runtime import console

__all__ = ["artifact"]


def artifact(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder step_<n> of a training, or its folder checkpoints: the newest.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    force: Annotated[
        bool, typer.Option("--force", help="Write over a folder that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an artifact from a checkpoint, of a training that is not over, say.

    For example: hpcbackmap artifact work/stages/ca-fg/checkpoints/step_400 -o ca-fg-400
    """
    from hpcbackmap.training.checkpoints.export import export_checkpoint

    console.show(export_checkpoint(checkpoint, output, force), as_json)
