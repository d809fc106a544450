"""The command `report`."""

from pathlib import Path
from typing import Annotated

import typer

from hpcbackmap.cli.options import CampaignFile, Overrides, load
from hpcbackmap.runtime.files import free_output

__all__ = ["report"]


def report(
    campaign: CampaignFile,
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file; default: report.html of the campaign."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that --output names.")
    ] = False,
) -> None:
    """Write the evaluation as one self-contained HTML page with pictures."""
    resolved = load(campaign, overrides)
    place = output or resolved.path("report.html")
    free_output(place, force=force or output is None)
    from hpcbackmap.report.report import write_report

    typer.echo(write_report(resolved, place))
