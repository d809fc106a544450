"""Nodes of a Slurm cluster, as the campaign file has them."""

import re
import shlex
from typing import Annotated, Any

from pydantic import Field, field_validator

from hpcbackmap.config.model import Model
from hpcbackmap.config.values import Line, Nodes

__all__ = ["NodeGroup", "NodeGroups"]


SLURM_TIME = re.compile(r"([0-9]{1,6}-)?[0-9]{1,6}(:[0-9][0-9]){0,2}")


class NodeGroup(Model):
    """Nodes of a Slurm cluster for one step. What is None is left to the batch script and the site."""

    nodes: Nodes = 1
    """Nodes of the job."""
    tasks_per_node: Nodes = 1
    """Ranks: one per GPU, or as many as the cores serve."""
    cpus_per_task: Nodes | None = None
    """Cores of a rank."""
    gpus_per_node: Nodes | None = None
    """GPUs of a node."""
    partition: Line | None = None
    """Partition, as `sinfo` lists them."""
    time: str | None = None
    """``"HH:MM:SS"`` or ``D-HH:MM:SS``; a stage that is not done by then requeues itself."""
    account: Line | None = None
    """Account that is charged."""
    constraint: Line | None = None
    """Features that the nodes must have."""
    mem: Annotated[str, Field(pattern=r"^[0-9]{1,12}[KMGT]?$")] | None = None
    """Per node, for example ``64G``."""
    sbatch: list[Line] = []
    """More options of sbatch, for example ``--qos=high``."""

    @field_validator("time", mode="before")
    @classmethod
    def _is_slurm_time(cls, time: Any) -> Any:
        if time is None or (isinstance(time, str) and SLURM_TIME.fullmatch(time)):
            return time
        raise ValueError(
            'write a time as "04:00:00" or 1-12:00:00, in quotes where YAML sees a number'
        )

    @field_validator("sbatch")
    @classmethod
    def _are_options(cls, options: list[str]) -> list[str]:
        for option in options:
            try:
                words = shlex.split(option)
            except ValueError as error:
                raise ValueError(f"{option!r}: {error}") from None
            if not words or not words[0].startswith("-"):
                raise ValueError(f"{option!r}: write an option of sbatch, such as --qos=high")
        return options

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


class NodeGroups(Model):
    """Nodes for the steps that are no stages; a stage has its own `node_group`."""

    ingest: NodeGroup = NodeGroup()
    """For `ingest`."""
    backmap: NodeGroup = NodeGroup()
    """For `backmap`."""
    evaluate: NodeGroup = NodeGroup()
    """For `evaluate`, likelihoods and report."""
