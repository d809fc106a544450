"""The command `inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import Json, Overrides, load
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime import console
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["inspect"]


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
    from hpcbackmap.cli import inspection

    path = Path(place)
    if place == "shipped" and not path.exists():
        from hpcbackmap.runtime.shipped_weights import shipped_artifact

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
