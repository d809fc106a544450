"""A discrete-event model of the driver at sizes that no test machine has.

    python benchmarks/throughput/driver/scale.py costs.json [--ranks 10000] [--structures 1e9] > table

Ranks take shards from one counter, compute, write their files, read them back and record them, as in
`hpcbackmap/backmapping/worker.py`. What one rank costs is measured by `costs.py`; what a large machine adds
(latency of the network, metadata and bandwidth of the file system for all together, failures) is assumed:
the defaults of `Machine`.
"""

import argparse
import heapq
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Machine:
    """Seconds and bytes. Measured: counter: service time of one fetch at rank 0, which serves one at a time.
    create: of one small file, flushed, by one rank alone. write, read: bytes per second of one rank. spread:
    standard deviation of the logarithm of a rank's pace. Assumed: latency: of a one-sided operation.
    metadata: file operations per second of the file system, all ranks together. bandwidth: bytes per second,
    all ranks together. node_mtbf: mean seconds between failures of one node; a failure ends the job."""

    counter: float
    create: float
    write: float
    read: float
    spread: float
    latency: float = 5e-6
    metadata: float = 5e4
    bandwidth: float = 1e11
    node_mtbf: float = 5 * 365 * 86400.0
    ranks_per_node: int = 64


@dataclass(frozen=True)
class Work:
    """rate: structures per second of a mean rank. size: bytes of a structure. files: made per shard.
    start: seconds from the launch to the first shard."""

    structures: float
    rate: float
    size: float
    shard_seconds: float = 120.0
    files: int = 5
    start: float = 60.0


def simulate(machine: Machine, work: Work, ranks: int, seed: int = 0) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    per_shard = work.rate * work.shard_seconds
    shards = int(np.ceil(work.structures / per_shard))
    pace = work.rate * np.exp(rng.normal(scale=machine.spread, size=ranks))
    events = [(0.0, False, rank) for rank in range(ranks)]
    counter_free = disk_free = metadata_free = 0.0
    waited = {"counter": 0.0, "metadata": 0.0, "bandwidth": 0.0}
    taken, busy, last = 0, 0.0, np.zeros(ranks)
    while events:
        now, computed, rank = heapq.heappop(events)
        if not computed:
            last[rank] = now
            if taken == shards:
                continue
            taken += 1
            counter_free = max(now, counter_free) + machine.counter
            begun = counter_free + machine.latency
            waited["counter"] += begun - now
            busy += per_shard / pace[rank]
            heapq.heappush(events, (begun + per_shard / pace[rank], True, rank))
        else:
            metadata_free = max(now, metadata_free) + work.files / machine.metadata
            disk_free = max(metadata_free, disk_free)
            disk_free += 2 * per_shard * work.size / machine.bandwidth
            waited["metadata"] += metadata_free - now
            waited["bandwidth"] += disk_free - metadata_free
            size = per_shard * work.size
            alone = work.files * machine.create + size / machine.write + size / machine.read
            heapq.heappush(events, (max(disk_free, now + alone), False, rank))
    wall = float(last.max())
    failures = wall * ranks / machine.ranks_per_node / machine.node_mtbf
    lost = failures * (work.start + 0.5 * work.shard_seconds)
    total = ranks * (wall + work.start)
    return {
        "ranks": ranks,
        "shards": shards,
        "files": shards * work.files,
        "wall_hours": (wall + work.start + lost) / 3600,
        "efficiency": busy / total,
        "counter_share": waited["counter"] / total,
        "counter_load": shards * machine.counter / wall,
        "metadata_share": waited["metadata"] / total,
        "bandwidth_share": waited["bandwidth"] / total,
        "tail_share": float((wall - last).sum()) / total,
        "failures": failures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("costs", type=Path, help="what costs.py printed")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--structures", type=float, default=1e9)
    parser.add_argument("--rate", type=float, default=50.0, help="structures per second and rank")
    parser.add_argument("--size", type=float, default=25e3, help="bytes of a structure")
    parser.add_argument("--shard-seconds", type=float, nargs="+", default=[10.0, 120.0, 600.0])
    arguments = parser.parse_args()
    measured = json.loads(arguments.costs.read_text())
    keys = ("counter", "create", "write", "read", "spread")
    machine = Machine(**{key: measured[key] for key in keys})
    names = None
    for ranks in arguments.ranks:
        for seconds in arguments.shard_seconds:
            work = Work(arguments.structures, arguments.rate, arguments.size, seconds)
            if work.structures / (work.rate * seconds) < ranks:
                continue
            row = {"shard_s": seconds, **simulate(machine, work, ranks)}
            if names is None:
                names = list(row)
                print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
            print("| " + " | ".join(f"{row[name]:.4g}" for name in names) + " |", flush=True)


if __name__ == "__main__":
    main()
