"""Arguments that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hpcbackmap.config.campaign import Campaign

__all__ = ["CampaignFile", "Json", "Overrides", "absolute", "load"]

CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN", help="Campaign file, for example campaign.yaml.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Campaign keys to change, for example stages.ca-fg.train.max_steps=200.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Result as JSON on standard output; all else on standard error."),
]


def load(path: Path, overrides: list[str] | None) -> "Campaign":
    from hpcbackmap.config.load import load_campaign

    return load_campaign(path, overrides or [])


def absolute(location: str) -> str:
    """A path of the caller, who does not know where the campaign's folder is; URLs stay."""
    return location if "://" in location else str(Path(location).resolve())
