"""The command `cancel`."""

import typer

from hpcbackmap.cli.options import CampaignFile, Overrides, load

__all__ = ["cancel"]


def cancel(campaign: CampaignFile, overrides: Overrides = None) -> None:
    """Take a campaign's jobs out of the queue; running trainings write a checkpoint first."""
    resolved = load(campaign, overrides)
    from hpcbackmap.cluster.submission import cancel_campaign

    for line in cancel_campaign(resolved):
        typer.echo(line)
