"""Which Slurm job does which step: `jobs.json` of a campaign."""

from typing import Any

from hpcbackmap.cluster import scheduler
from hpcbackmap.cluster.scheduler import Job
from hpcbackmap.cluster.scripts import FOLDER
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import read_regular, write_json
from hpcbackmap.runtime.parsing import json_value

__all__ = ["Ledger"]


class Ledger:
    """`jobs.json`: number and component of the newest job of each name, with its log and script."""

    def __init__(self, campaign: Campaign):
        self.path = campaign.path(f"{FOLDER}/jobs.json")
        self.records: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                self.records = _records(json_value(read_regular(self.path)))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{self.path}: damaged; remove it once `squeue` is empty"
                ) from None

    def add(self, name: str, record: dict[str, Any]) -> None:
        self.records[name] = record
        write_json(self.path, self.records)

    def jobs(self) -> dict[str, Job]:
        """What Slurm knows of these jobs. A number that Slurm has given to another job does not count."""
        found = scheduler.find_jobs({record["id"] for record in self.records.values()})
        known = {
            name: found.get((record["id"], record["component"]))
            for name, record in self.records.items()
        }
        return {
            name: job
            for name, job in known.items()
            if job is not None and job.name == self.records[name]["job_name"]
        }


def _records(found: Any) -> dict[str, dict[str, Any]]:
    """What `Ledger.add` has written. Raises an error of the lookup for anything else."""
    for record in found.values():
        str(record["id"]), record["component"], record["job_name"]
    return dict(found)
