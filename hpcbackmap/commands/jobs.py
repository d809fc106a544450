"""Commands about jobs of a cluster: submit, status, cancel."""

from typing import Annotated

import typer

from hpcbackmap import console
from hpcbackmap.commands.options import CampaignFile, Json, Overrides, load

__all__ = ["cancel", "status", "submit"]


def submit(
    campaign: CampaignFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts; submit nothing.")
    ] = False,
    het: Annotated[
        bool, typer.Option("--het", help="All stages in one heterogeneous job.")
    ] = False,
) -> None:
    """Submit what is missing to Slurm: ingest, all stages at once on their own nodes, backmap, evaluate.

    Nodes: `node_groups` and `stages.<stage>.node_group` of the campaign. What is in the queue stays there.
    """
    resolved = load(campaign, overrides)
    from hpcbackmap.cluster import submission

    send = submission.dry_run if dry_run else submission.submit_campaign
    for line in send(resolved, campaign, overrides or [], het):
        typer.echo(line)


def status(campaign: CampaignFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show how every step of a campaign stands; from its files alone where there is no Slurm."""
    resolved = load(campaign, overrides)
    from hpcbackmap.cluster.status import as_record, campaign_status, table

    rows = campaign_status(resolved)
    if as_json:
        console.show(as_record(rows), as_json)
    else:
        console.show_lines(table(rows))


def cancel(campaign: CampaignFile, overrides: Overrides = None) -> None:
    """Take a campaign's jobs out of the queue; running trainings write a checkpoint first."""
    resolved = load(campaign, overrides)
    from hpcbackmap.cluster.submission import cancel_campaign

    for line in cancel_campaign(resolved):
        typer.echo(line)
