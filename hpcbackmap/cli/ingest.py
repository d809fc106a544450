"""The command `ingest`."""

from hpcbackmap.cli.options import CampaignFile, Json, Overrides, Quiet, Verbose, load
from hpcbackmap.runtime import console

__all__ = ["ingest"]


def ingest(
    campaign: CampaignFile,
    overrides: Overrides = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Read the campaign's trajectories into its frame store.

    In parallel: mpirun -n 4 hpcbackmap ingest campaign.yaml
    """
    if verbose or quiet:
        console.configure_logging(verbose, quiet)
    resolved = load(campaign, overrides)
    from hpcbackmap.ingest.ingest import ingest
    from hpcbackmap.runtime.mpi import get_comm

    result = ingest(resolved, get_comm())
    if not quiet or as_json:
        console.show(result, as_json)
