"""What a training says first: who runs it, where, with what."""

import logging
import os
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from hpcbackmap import __version__
from hpcbackmap.config.campaign import Campaign
from hpcbackmap.training.checkpoints.checkpoints import library_versions
from hpcbackmap.training.ranks.world import World

__all__ = ["announce", "start_record"]

log = logging.getLogger(__name__)


def start_record(
    campaign: Campaign, stage: str, world: World, device: torch.device
) -> dict[str, Any]:
    """This start of this rank, for `metrics.jsonl`: time (UTC), node, rank, settings, versions.

    node: Slurm's name of it, else the host's. commit: of rank 0, None outside a git checkout;
    a thousand ranks would ask git at once.
    """
    train = campaign.stages[stage].train
    host = socket.gethostname()
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "node": os.environ.get("SLURMD_NODENAME", host),
        "host": host,
        "rank": world.rank,
        "world": world.size,
        "local_rank": world.local_rank,
        "launcher": world.launcher,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "zero_stage": train.zero_stage,
        "precision": train.precision,
        "campaign": campaign.name,
        "stage": stage,
        "config": campaign.digest(),
        "version": __version__,
        "commit": _commit() if world.rank == 0 else None,
        "libraries": {name: it for name, it in library_versions().items() if name != "hpcbackmap"},
    }


def announce(record: dict[str, Any]) -> None:
    """The same in a few log lines. Collective: the nodes of all ranks are named."""
    nodes = [record["node"]] * record["world"]
    if record["world"] > 1:
        torch.distributed.all_gather_object(nodes, record["node"])
    libraries = ", ".join(f"{name} {number}" for name, number in record["libraries"].items())
    commit = f" (commit {record['commit']})" if record["commit"] else ""
    log.info("hpcbackmap %s%s, %s", record["version"], commit, libraries)
    log.info(
        "campaign %s (%s), stage %s", record["campaign"], record["config"][:12], record["stage"]
    )
    log.info(
        "%d rank(s) by %s on %s, %s, %d thread(s) each, ZeRO %d, %s",
        record["world"],
        record["launcher"],
        _shortened(list(dict.fromkeys(nodes))),
        record["device"],
        record["threads"],
        record["zero_stage"],
        record["precision"],
    )


def _shortened(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _commit() -> str | None:
    """Commit of the checkout that this package runs from, ``-dirty`` where files were changed."""
    checkout = Path(__file__).resolve().parents[3]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
