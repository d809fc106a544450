"""The command `export`."""

from typing import Annotated

import typer

from hpcbackmap.runtime import console

__all__ = ["export"]


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
    force: Annotated[
        bool, typer.Option("--force", help="Write over files that are there.")
    ] = False,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Every so many frames.")] = 1,
) -> None:
    """Write frames of a store as a trajectory that other programs read.

    For example: hpcbackmap export backmapped.zarr -o members.xtc
    In parallel: mpirun -n 4 hpcbackmap export backmapped.zarr -o members.xtc
    """
    from hpcbackmap.runtime.mpi import get_comm
    from hpcbackmap.store.export import export
    from hpcbackmap.store.store import open_store

    frames = export(
        open_store(store),
        resolution,
        output,
        system=system,
        start=start,
        stop=stop,
        stride=stride,
        comm=get_comm(),
        force=force,
    )
    console.show_lines([f"{frames} frames in {output}"])
