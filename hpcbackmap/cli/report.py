"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import CampaignFile, Overrides, load

__all__ = ["report"]


def report(
    campaign: CampaignFile,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file; default: report.html of the campaign."),
    ] = None,
) -> None:
    """Write the evaluation as one self-contained HTML page with pictures."""
    resolved = load(campaign, overrides)
    from hpcbackmap.report.report import write_report

    typer.echo(write_report(resolved, output or resolved.path("report.html")))
