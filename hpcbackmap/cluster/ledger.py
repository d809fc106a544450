"""Which Slurm job does which step: `jobs.json` of a campaign."""

import json

from hpcbackmap.cluster import scheduler
from hpcbackmap.cluster.scheduler import Job
from hpcbackmap.cluster.scripts import FOLDER
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime.errors import InputError
from hpcbackmap.runtime.files import write_json

__all__ = ["Ledger"]


class Ledger:
    """`jobs.json`: number and component of the newest job of each name, with its log and script."""

    def __init__(self, campaign: Campaign):
        self.path = campaign.path(f"{FOLDER}/jobs.json")
        self.records: dict[str, dict] = {}
        if self.path.exists():
            try:
                self.records = json.loads(self.path.read_text())
            except ValueError:
                raise InputError(
                    f"{self.path}: damaged; remove it once `squeue` is empty"
                ) from None

    def add(self, name: str, record: dict) -> None:
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
