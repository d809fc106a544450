"""The command `status`."""

from hpcbackmap.cli.options import CampaignFile, Json, Overrides, load
from hpcbackmap.runtime import console

__all__ = ["status"]


def status(campaign: CampaignFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show how every step of a campaign stands; from its files alone where there is no Slurm."""
    resolved = load(campaign, overrides)
    from hpcbackmap.cluster.status import as_record, campaign_status, table

    rows = campaign_status(resolved)
    if as_json:
        console.show(as_record(rows), as_json)
    else:
        console.show_lines(table(rows))
