"""The script of a job: Slurm's options from the campaign, then a call of a batch script of this package."""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcbackmap.config.campaign import Campaign, NodeGroup
from hpcbackmap.runtime.errors import InputError

__all__ = ["FOLDER", "PlannedJob", "batch_scripts", "job_name", "script_of", "script_path"]

FOLDER = "slurm"
"""Of scripts, logs and `jobs.json`, below the campaign's `workdir`."""
WARNING_SECONDS = 300
"""Before the walltime; a quarter of short ones."""
OPTIONS = {
    "nodes": "--nodes",
    "tasks_per_node": "--ntasks-per-node",
    "cpus_per_task": "--cpus-per-task",
    "gpus_per_node": "--gpus-per-node",
    "partition": "--partition",
    "time": "--time",
    "account": "--account",
    "constraint": "--constraint",
    "mem": "--mem",
}


@dataclass(frozen=True)
class PlannedJob:
    """A job to submit.

    names: ``ingest``, ``backmap``, ``evaluate`` or ``train ca-fg``, several of these in a heterogeneous job,
    and as many groups. after: names that have to end well before.
    """

    names: tuple[str, ...]
    groups: tuple[NodeGroup, ...]
    batch_script: str
    arguments: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def title(self) -> str:
        return self.names[0].replace(" ", "-") if len(self.names) == 1 else "train"


def script_path(campaign: Campaign, job: PlannedJob) -> Path:
    return campaign.path(f"{FOLDER}/{job.title}.sh")


def job_name(campaign: Campaign, job: PlannedJob) -> str:
    return re.sub(r"[^\w.-]+", "-", f"{campaign.name}-{job.title}")


def script_of(campaign: Campaign, job: PlannedJob) -> str:
    """The batch script's own options, changed by the node group; then the call of the batch script."""
    batch_script = batch_scripts() / job.batch_script
    options = _own_options(batch_script) | {
        "--job-name": job_name(campaign, job),
        "--output": _log_pattern(campaign, job),
    }
    options |= _group_options(job.groups[0])
    if "--signal" in options:
        options["--signal"] = (
            f"B:USR1@{min(WARNING_SECONDS, _seconds(options['--time'] or '') // 4)}"
        )
    lines = ["#!/usr/bin/env bash", *_directives(options)]
    lines += _own_directives(job.groups[0])
    for group in job.groups[1:]:
        own = {name: options[name] for name in ("--time", "--job-name")}
        lines += ["#SBATCH hetjob", *_directives(own | _group_options(group))]
        lines += _own_directives(group)
    lines += [
        "# Written by `hpcbackmap submit`.",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        "exec " + shlex.join(["bash", str(batch_script), *job.arguments]),
    ]
    return "\n".join([*lines, ""])


def batch_scripts() -> Path:
    """Folder of the batch scripts: of the installed package, or of the checkout."""
    package = Path(__file__).resolve().parents[1]
    places = [package / "slurm", package.parent / "slurm"]
    found = next((place for place in places if (place / "job.sh").exists()), None)
    if found is None:
        raise InputError(f"the batch scripts are not part of this installation: {places[0]}")
    return found


def _own_options(batch_script: Path) -> dict[str, str | None]:
    lines = batch_script.read_text().splitlines()
    options = (line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH "))
    return {name: value or None for name, _, value in (item.partition("=") for item in options)}


def _seconds(time: str) -> int:
    """Of Slurm's ``D-HH:MM:SS``, ``D-HH``, ``HH:MM:SS``, ``MM:SS`` or ``MM``."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, seconds = [*parts, 0, 0][:3] if dash or len(parts) == 3 else [0, *parts, 0][:3]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _group_options(group: NodeGroup) -> dict[str, str | None]:
    values = {option: getattr(group, key) for key, option in OPTIONS.items()}
    return {option: str(value) for option, value in values.items() if value is not None}


def _log_pattern(campaign: Campaign, job: PlannedJob) -> str:
    """Slurm puts the job's number for ``%j``; a percent sign of a folder's name is written twice."""
    folder = str(campaign.path(FOLDER)).replace("%", "%%")
    return f"{folder}/{job.title}-%j.log"


def _own_directives(group: NodeGroup) -> list[str]:
    """Options that the campaign writes out, quoted anew."""
    return ["#SBATCH " + shlex.join(shlex.split(option)) for option in group.sbatch]


def _directives(options: dict[str, str | None]) -> list[str]:
    return [
        "#SBATCH " + (name if value is None else shlex.quote(f"{name}={value}"))
        for name, value in options.items()
    ]
