"""The command `submit`."""

from typing import Annotated

import typer

from hpcbackmap.cli.options import CampaignFile, Overrides, load

__all__ = ["submit"]


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
