"""Commands about what is there: export, artifact, inspect, verify."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap import console
from hpcbackmap.commands.options import Json, Overrides, load
from hpcbackmap.config import Campaign
from hpcbackmap.errors import ConfigError

__all__ = ["artifact", "export", "inspect", "verify"]


def export(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Frame store, for example frames.zarr.")
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .xtc, .dcd or .pdb; with {frame} in its name, a file per frame.",
        ),
    ],
    resolution: Annotated[
        str, typer.Option("--resolution", help="fg, ca or another of the store.")
    ] = "fg",
    system: Annotated[
        str | None, typer.Option("--system", help="System, where the store holds several.")
    ] = None,
    start: Annotated[int, typer.Option("--start", min=0, help="First frame.")] = 0,
    stop: Annotated[int | None, typer.Option("--stop", help="Frame to stop before.")] = None,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Every so many frames.")] = 1,
) -> None:
    """Write frames of a store as a trajectory that other programs read.

    For example: hpcbackmap export backmapped.zarr -o members.xtc
    In parallel: mpirun -n 4 hpcbackmap export backmapped.zarr -o members.xtc
    """
    from hpcbackmap.frames.export import export
    from hpcbackmap.frames.store import open_store
    from hpcbackmap.mpi import get_comm

    frames = export(
        open_store(store),
        resolution,
        output,
        system=system,
        start=start,
        stop=stop,
        stride=stride,
        comm=get_comm(),
    )
    console.show_lines([f"{frames} frames in {output}"])


def artifact(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder step_<n> of a training, or its folder checkpoints: the newest.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.")],
    as_json: Json = False,
) -> None:
    """Make an artifact from a checkpoint, of a training that is not over, say.

    For example: hpcbackmap artifact work/stages/ca-fg/checkpoints/step_400 -o ca-fg-400
    """
    from hpcbackmap.training.export import export_checkpoint

    console.show(export_checkpoint(checkpoint, output), as_json)


def inspect(
    place: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN|STORE|ARTIFACT|shipped",
            help="What to look at; shipped: the stage that comes with the package.",
        ),
    ],
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="Instead: memory that training this stage of it takes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what is in a store or an artifact, or what a campaign would run and what is done.

    With --stage: bytes on every rank for each ZeRO stage and number of ranks, and whether ZeRO helps.
    """
    from hpcbackmap import inspection

    path = Path(place)
    if place == "shipped" and not path.exists():
        from hpcbackmap.backmapping.shipped import shipped_artifact

        path = shipped_artifact()
    if "://" in place and stage is None:
        console.show(inspection.describe_store(place), as_json)
    elif stage is not None:
        if path.is_dir():
            raise ConfigError(f"inspect: --stage is for a campaign file, {path} is a folder")
        _inspect_memory(load(path, overrides), stage, as_json)
    elif path.is_dir():
        console.show(inspection.describe_folder(path), as_json)
    else:
        console.show(inspection.describe_campaign(load(path, overrides)), as_json)


def _inspect_memory(campaign: Campaign, stage: str, as_json: bool) -> None:
    from hpcbackmap.training.memory import memory_lines, stage_memory

    record = stage_memory(campaign, stage)
    if as_json:
        console.show(record, as_json)
    else:
        console.show_lines(memory_lines(record))


def verify(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Frame store, for example backmapped.zarr.")
    ],
    as_json: Json = False,
) -> None:
    """Read every shard of a store against its checksums, and count.

    In parallel: mpirun -n 4 hpcbackmap verify backmapped.zarr
    """
    from hpcbackmap.frames.verify import verify_store
    from hpcbackmap.mpi import get_comm

    console.show(verify_store(store, get_comm()), as_json)
