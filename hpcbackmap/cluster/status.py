"""How a campaign stands, step by step: from its files, and from Slurm where there is one."""

import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hpcbackmap.cluster import scheduler
from hpcbackmap.cluster.ledger import Ledger
from hpcbackmap.cluster.plan import job_of_step
from hpcbackmap.cluster.scheduler import Job
from hpcbackmap.cluster.steps import Step, campaign_steps
from hpcbackmap.config.campaign import Campaign, NodeGroup
from hpcbackmap.runtime.errors import InputError, ResourceError, Stopped
from hpcbackmap.runtime.files import read_regular
from hpcbackmap.runtime.parsing import json_value
from hpcbackmap.training.ranks.lock import is_being_trained

__all__ = ["Row", "as_record", "campaign_status", "table"]

WAITING, RUNNING, STOPPED, FAILED, DONE = "waiting", "running", "stopped", "failed", "done"
START_LINE = re.compile(r"^hpcbackmap: job \d+: start \d+ on (\S+),", re.MULTILINE)
STOP_LINE = re.compile(r"^hpcbackmap: job \d+: (.*; submit again.*)$", re.MULTILINE)
END_LINE = re.compile(r"^hpcbackmap: job \d+: ended with code (\d+)$", re.MULTILINE)
ERROR_LINE = re.compile(r"hpcbackmap: error: (.*)$", re.MULTILINE)
CAUSES = {
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "out of memory",
    "TIMEOUT": "walltime over",
}


@dataclass
class Row:
    """One step. group: of nodes, that it asks for. nodes: that it ran on last. at, of: optimiser steps."""

    step: str
    state: str
    group: str
    nodes: str = ""
    job: int | None = None
    exit_code: int | None = None
    at: int | None = None
    of: int | None = None
    loss: float | None = None
    restarts: int | None = None
    seconds_left: int | None = None
    note: str = ""


def campaign_status(campaign: Campaign) -> list[Row]:
    """One row per step, in order."""
    ledger = Ledger(campaign)
    jobs, silent = _ask_slurm(ledger)
    steps = campaign_steps(campaign)
    unfinished = {job_of_step(step.name) for step in steps if not step.done}
    rows = []
    for step in steps:
        row = Row(step.name, WAITING, _group_text(campaign, step))
        name = job_of_step(step.name)
        record, job = ledger.records.get(name), jobs.get(name)
        if step.arguments[0] == "train":
            _read_training(campaign, row)
        if job:
            row.restarts = max(row.restarts or 0, job.restarts)
        if step.done:
            row.state = DONE
        if record:
            row.job, log = record["id"], _read_log(Path(record["log"]))
            places = START_LINE.findall(log)
            row.nodes = (job and job.nodes) or (places[-1] if places else row.nodes)
            needs = [other for other in record["after"] if other in unfinished]
            if not step.done:
                _read_job(row, record["log"], log, job, needs, silent)
        if row.state != RUNNING:
            row.seconds_left = None
        rows.append(row)
    return rows


def _ask_slurm(ledger: Ledger) -> tuple[dict[str, Job], bool]:
    """Jobs, and whether Slurm could not be asked."""
    if not ledger.records:
        return {}, False
    if not scheduler.is_here():
        return {}, True
    try:
        return ledger.jobs(), False
    except ResourceError:
        return {}, True


def _group_text(campaign: Campaign, step: Step) -> str:
    if step.arguments[0] == "train":
        group = campaign.stages[step.arguments[-1]].node_group
    else:
        group = getattr(campaign.node_groups, job_of_step(step.name))
    return _shape(group)


def _shape(group: NodeGroup) -> str:
    """For example ``gpu 2x4``: partition, nodes, tasks per node."""
    shape = f"{group.nodes}x{group.tasks_per_node}"
    return f"{group.partition} {shape}" if group.partition else shape


def _read_training(campaign: Campaign, row: Row) -> None:
    """Progress from `metrics.jsonl`; running if some process holds the stage's folder."""
    stage = row.step.removeprefix("train ")
    folder, train = campaign.path(f"stages/{stage}"), campaign.stages[stage].train
    row.of = train.max_steps
    records = _records(folder / "metrics.jsonl")
    starts = [number for number, record in enumerate(records) if record["kind"] == "start"]
    if not starts:
        return
    row.nodes, row.restarts = records[starts[-1]]["node"], len(starts) - 1
    row.state = RUNNING if is_being_trained(folder) else STOPPED
    steps = [record for record in records if record["kind"] == "train"]
    if not steps:
        return
    last = steps[-1]
    row.at, row.loss = last["step"], last.get("loss")
    since = [record for record in records[starts[-1] :] if record["kind"] == "train"]
    first = since[0] if len(since) > 1 else {"step": 0, "seconds": 0.0}
    pace = (last["seconds"] - first["seconds"]) / max(last["step"] - first["step"], 1)
    left = (train.max_steps - last["step"]) * pace
    if train.max_minutes is not None:
        left = min(left, 60 * train.max_minutes - last["seconds"])
    row.seconds_left = max(0, round(left))


def _records(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may be growing."""
    try:
        lines = read_regular(path).decode().splitlines()
    except (InputError, OSError, UnicodeDecodeError):
        return []
    records = []
    for line in lines:
        try:
            record = json_value(line)
            wanted = ("node",) if record["kind"] == "start" else ("step", "seconds")
            if record["kind"] in ("start", "train") and all(key in record for key in wanted):
                records.append(record)
        except (ValueError, LookupError, TypeError):
            break
    return records


def _read_log(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _read_live_job(row: Row, job: Job, needs: list[str]) -> None:
    row.state = WAITING if job.state == "PENDING" else RUNNING
    if row.state == WAITING:
        row.note = f"needs {', '.join(needs)}" if needs else f"in the queue ({job.reason})"


def _read_job(
    row: Row, log: str, text: str, job: Job | None, needs: list[str], silent: bool
) -> None:
    """State of a step that is not done but was submitted. log: path of its log, text: what it says."""
    text = text[max((found.start() for found in START_LINE.finditer(text)), default=0) :]
    ends, errors, stops = (it.findall(text) for it in (END_LINE, ERROR_LINE, STOP_LINE))
    if job and job.is_live:
        _read_live_job(row, job, needs)
        return
    if row.state == RUNNING:
        return
    row.state = WAITING
    cause = CAUSES.get(job.state) if job else None
    if ends:
        row.exit_code = int(ends[-1])
    elif job and job.exit_code:
        row.exit_code = job.exit_code
    if row.exit_code == 0:
        row.note = "files or settings changed since; submit again"
    elif row.exit_code == Stopped.exit_code:
        row.state, row.note = STOPPED, (stops or ["submit again to continue"])[-1]
    elif row.exit_code or cause:
        row.state, row.note = FAILED, errors[-1] if errors else cause or f"see {log}"
    elif silent:
        row.state, row.note = RUNNING if text else WAITING, "Slurm was not asked"
    elif text:
        row.state, row.note = STOPPED, "submit again to continue"
    else:
        row.state = STOPPED
        row.note = f"did not start: needs {', '.join(needs)}" if needs else "did not start"


def table(rows: list[Row]) -> list[str]:
    """The rows as aligned lines under a heading."""
    heading = ("step", "state", "group", "nodes", "progress", "loss", "restarts", "left", "")
    cells: list[tuple[str, ...]] = [heading, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _cells(row: Row) -> tuple[str, ...]:
    state = f"{row.state} ({row.exit_code})" if row.exit_code else row.state
    progress = "" if row.of is None else f"{row.at or 0}/{row.of}"
    loss = "" if row.loss is None else f"{row.loss:.4f}"
    restarts = "" if row.restarts is None else str(row.restarts)
    left = "" if row.seconds_left is None else str(timedelta(seconds=row.seconds_left))
    return (row.step, state, row.group, row.nodes, progress, loss, restarts, left, row.note)


def as_record(rows: list[Row]) -> dict[str, Any]:
    return {"steps": [asdict(row) for row in rows]}
