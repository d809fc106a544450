"""Send a campaign to Slurm: ingest, all stages at once on their own nodes, backmap, evaluate."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcbackmap.cluster import scheduler
from hpcbackmap.cluster.ledger import Ledger
from hpcbackmap.cluster.plan import as_one_job, plan_jobs
from hpcbackmap.cluster.scripts import FOLDER, PlannedJob, job_name, script_of, script_path
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime.errors import ConfigError
from hpcbackmap.runtime.files import write_whole

__all__ = ["cancel_campaign", "dry_run", "submit_campaign"]


def submit_campaign(
    campaign: Campaign, file: Path, overrides: list[str], together: bool = False
) -> Iterator[str]:
    """Submit what is missing and not in the queue; yields a line per job.

    together: the stages as one heterogeneous job. Raises ConfigError, before anything is submitted, if Slurm
    would refuse a job, ResourceError if Slurm does not answer.
    """
    scheduler.require()
    ledger = Ledger(campaign)
    known = ledger.jobs()
    queued = {name for name, job in known.items() if job.is_live}
    planned = plan_jobs(campaign, file, overrides)
    new = _not_queued(planned, queued)
    for job in planned:
        if job not in new:
            yield f"{job.names[0]:<16} in the queue already: job {ledger.records[job.names[0]]['id']}"
    if not planned:
        yield "nothing to do: the campaign is complete"
    new = as_one_job(new) if together else new
    scripts = [(job, _write(campaign, job)) for job in new]
    for job, script in scripts:
        doubt = _require_accepted(job, script)
        if doubt:
            yield f"{job.names[0]:<16} cannot start as things are: {doubt} (drained nodes, or asked too much)"
    outdated = {name for job in new for name in job.names} & queued
    if outdated:
        scheduler.cancel({ledger.records[name]["id"] for name in outdated})
    for job, script in scripts:
        after = sorted({ledger.records[name]["id"] for name in job.after})
        number = scheduler.submit(script, after)
        for component, name in enumerate(job.names):
            ledger.add(name, _record(campaign, job, number, component))
            waits = f", after {', '.join(map(str, after))}" if after else ""
            yield f"{name:<16} job {number}{waits}"


def _not_queued(planned: list[PlannedJob], queued: set[str]) -> list[PlannedJob]:
    """Also those in the queue that wait for a job which has to be submitted anew."""
    new: list[PlannedJob] = []
    names: set[str] = set()
    for job in planned:
        if job.names[0] not in queued or names & set(job.after):
            new.append(job)
            names |= set(job.names)
    return new


def dry_run(
    campaign: Campaign, file: Path, overrides: list[str], together: bool = False
) -> Iterator[str]:
    """The scripts of all missing steps and how they would be submitted; asks Slurm nothing, writes nothing."""
    jobs = plan_jobs(campaign, file, overrides)
    for job in as_one_job(jobs) if together else jobs:
        wait = ""
        if job.after:
            numbers = ":".join(f"<{name}>" for name in job.after)
            wait = f"--dependency=afterok:{numbers} --kill-on-invalid-dep=yes "
        yield f"# {script_path(campaign, job)}\n# submitted by: sbatch {wait}{job.title}.sh"
        yield script_of(campaign, job)
    if not jobs:
        yield "nothing to do: the campaign is complete"


def cancel_campaign(campaign: Campaign) -> Iterator[str]:
    """Take all jobs out of the queue; running trainings write a checkpoint. Yields a line per job."""
    scheduler.require()
    ledger = Ledger(campaign)
    live = [name for name, job in ledger.jobs().items() if job.is_live]
    if live:
        scheduler.cancel({ledger.records[name]["id"] for name in live})
    for name in live:
        yield f"{name:<16} job {ledger.records[name]['id']} cancelled"
    if not live:
        yield "no job of this campaign is in the queue"


def _require_accepted(job: PlannedJob, script: Path) -> str | None:
    """What keeps the job from starting now. Raises ConfigError if Slurm would not take it at all."""
    reason, final = scheduler.objection(script)
    if final:
        keys = ", ".join(
            f"stages.{name.removeprefix('train ')}.node_group"
            if name.startswith("train ")
            else f"node_groups.{name}"
            for name in job.names
        )
        raise ConfigError(f"{keys}: Slurm refuses the job: {reason}; nothing was submitted")
    return reason


def _write(campaign: Campaign, job: PlannedJob) -> Path:
    path = script_path(campaign, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, script_of(campaign, job))
    return path


def _record(campaign: Campaign, job: PlannedJob, number: int, component: int) -> dict[str, Any]:
    return {
        "id": number,
        "component": component,
        "job_name": job_name(campaign, job),
        "log": str(campaign.path(f"{FOLDER}/{job.title}-{number}.log")),
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "after": list(job.after),
    }
