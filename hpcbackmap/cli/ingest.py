"""The command `ingest`."""

from hpcbackmap.cli.options import CampaignFile, Json, Overrides, load
from hpcbackmap.runtime import console

__all__ = ["ingest"]


def ingest(campaign: CampaignFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Read the campaign's trajectories into its frame store.

    In parallel: mpirun -n 4 hpcbackmap ingest campaign.yaml
    """
    resolved = load(campaign, overrides)
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import get_comm

    console.show(ingest(resolved, get_comm()), as_json)
