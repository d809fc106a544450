"""Which jobs a campaign still needs, and what each has to wait for."""

from dataclasses import replace
from pathlib import Path

from hpcbackmap.cluster.scripts import PlannedJob
from hpcbackmap.cluster.steps import campaign_steps
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.runtime.errors import ConfigError

__all__ = ["as_one_job", "job_of_step", "plan_jobs"]

EVALUATION = ("evaluate", "likelihood", "report")
"""Steps that one job does."""


def job_of_step(step: str) -> str:
    """Name of the job that does a step of `campaign_steps`."""
    return "evaluate" if step in EVALUATION else step


def plan_jobs(campaign: Campaign, file: Path, overrides: list[str]) -> list[PlannedJob]:
    """Jobs of all steps that are not done, in the order of their dependencies.

    Raises ConfigError if a stage's batch cannot be shared by its ranks.
    """
    common, groups = (str(file.resolve()), *overrides), campaign.node_groups
    missing = list(
        dict.fromkeys(job_of_step(s.name) for s in campaign_steps(campaign) if not s.done)
    )
    stages = tuple(name for name in missing if name.startswith("train "))
    jobs = {
        "ingest": PlannedJob(("ingest",), (groups.ingest,), "ingest.sh", common, ()),
        **{name: _training(campaign, name, common) for name in stages},
        "backmap": PlannedJob(
            ("backmap",), (groups.backmap,), "backmap.sh", common, ("ingest", *stages)
        ),
        "evaluate": PlannedJob(
            ("evaluate",), (groups.evaluate,), "evaluate.sh", common, ("backmap",)
        ),
    }
    return [
        replace(jobs[name], after=tuple(other for other in jobs[name].after if other in missing))
        for name in missing
    ]


def _training(campaign: Campaign, name: str, common: tuple[str, ...]) -> PlannedJob:
    stage = name.removeprefix("train ")
    config = campaign.stages[stage]
    group, share = config.node_group, config.train.accumulation * config.node_group.tasks
    if config.train.batch_size % share:
        raise ConfigError(
            f"stages.{stage}.train.batch_size={config.train.batch_size} cannot be shared by {group.tasks} "
            f"rank(s) of its node_group x accumulation {config.train.accumulation}; use a multiple of {share}"
        )
    arguments = (common[0], stage, *common[1:])
    return PlannedJob((name,), (group,), "train_stage.sh", arguments, ("ingest",))


def as_one_job(jobs: list[PlannedJob]) -> list[PlannedJob]:
    """The trainings as one heterogeneous job, where there are several."""
    parts = [job for job in jobs if job.batch_script == "train_stage.sh"]
    if len(parts) < 2:
        return jobs
    file, _, *overrides = parts[0].arguments
    stages = ",".join(job.arguments[1] for job in parts)
    one = PlannedJob(
        names=tuple(job.names[0] for job in parts),
        groups=tuple(job.groups[0] for job in parts),
        batch_script="train_together.sh",
        arguments=(file, stages, *overrides),
        after=parts[0].after,
    )
    place = jobs.index(parts[0])
    return [*jobs[:place], one, *(job for job in jobs[place:] if job not in parts)]
