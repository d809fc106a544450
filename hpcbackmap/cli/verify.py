"""The command `verify`."""

from typing import Annotated

import typer

from hpcbackmap.cli.options import Json
from hpcbackmap.runtime import console

__all__ = ["verify"]


def verify(
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Frame store, for example backmapped.zarr.")
    ],
    as_json: Json = False,
) -> None:
    """Read every shard of a store against its checksums, and count.

    In parallel: mpirun -n 4 hpcbackmap verify backmapped.zarr
    """
    from hpcbackmap.runtime.mpi import get_comm
    from hpcbackmap.store.verify import verify_store

    console.show(verify_store(store, get_comm()), as_json)
