"""Arguments that several commands have."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hpcbackmap.config.campaign import Campaign

__all__ = [
    "FILES",
    "BeadCenter",
    "CampaignFile",
    "Json",
    "Overrides",
    "Quiet",
    "Segments",
    "Verbose",
    "absolute",
    "load",
]

FILES = "Of files"

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
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="More log lines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only, no summary.")]

Segments = Annotated[
    str | None,
    typer.Option(
        "--segments",
        metavar="8,12,10,…",
        help="Residues of each bead, where one stands for several, or one number for all; default: even.",
        rich_help_panel=FILES,
    ),
]
BeadCenter = Annotated[
    str,
    typer.Option(
        "--bead-center",
        metavar="ca|atoms|mass",
        help="What such a bead is: mean of C-alpha atoms, mean or mass centre of heavy atoms.",
        rich_help_panel=FILES,
    ),
]


def load(path: Path, overrides: list[str] | None) -> "Campaign":
    from hpcbackmap.config.load import load_campaign

    return load_campaign(path, overrides or [])


def absolute(location: str) -> str:
    """A path of the caller, who does not know where the campaign's folder is; URLs stay."""
    return location if "://" in location else str(Path(location).resolve())
