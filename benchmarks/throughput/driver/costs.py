"""Costs of the driver's machinery on this machine, for `scale.py`.

    mpirun -n 2 python benchmarks/throughput/driver/costs.py FOLDER [--journals DRIVER_JSON] > costs.json

counter: seconds between two fetches from the shared counter when all ranks fetch as fast as they can.
latency: of a fetch by a rank that does not keep the counter, alone. create: seconds to write, flush and
rename one small file. write, read: bytes per second of one rank, flushed to the disk, and back from the page
cache. spread: standard deviation of the logarithm of a shard's time, of all shards in the journals of
`measure.py` (driver.json).
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np

from hpcbackmap.runtime.mpi import get_comm

FETCHES = 20_000
FILES = 300
MEGABYTES = 256


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--journals", type=Path, help="driver.json of measure.py")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    comm = get_comm()
    found = {"ranks": comm.size, "counter": all_fetch(comm), "latency": one_fetches(comm)}
    if comm.rank == 0:
        found["create"] = seconds_per_file(arguments.folder)
        found["write"], found["read"] = bytes_per_second(arguments.folder / "costs.bin")
        if arguments.journals:
            found["spread"] = spread(json.loads(arguments.journals.read_text()))
        print(json.dumps(found, indent=1))


def all_fetch(comm) -> float:
    counter = comm.counter()
    comm.barrier()
    begun = time.perf_counter()
    while counter.next() < FETCHES:
        pass
    seconds = comm.allreduce(time.perf_counter() - begun, "max")
    counter.free()
    return seconds / FETCHES


def one_fetches(comm) -> float:
    counter, seconds = comm.counter(), 0.0
    comm.barrier()
    if comm.rank == comm.size - 1:
        begun = time.perf_counter()
        for _ in range(FETCHES):
            counter.next()
        seconds = time.perf_counter() - begun
    seconds = comm.allreduce(seconds, "max")
    counter.free()
    return seconds / FETCHES


def seconds_per_file(folder: Path) -> float:
    begun = time.perf_counter()
    for number in range(FILES):
        scratch = folder / f"{number}.part"
        with scratch.open("w") as file:
            file.write("{}" * 100)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(folder / f"{number}.json")
    seconds = time.perf_counter() - begun
    for number in range(FILES):
        (folder / f"{number}.json").unlink()
    return seconds / FILES


def bytes_per_second(path: Path) -> tuple[float, float]:
    block = np.random.default_rng(0).bytes(1_000_000)
    begun = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written, begun = time.perf_counter() - begun, time.perf_counter()
    with path.open("rb") as file:
        while file.read(1_000_000):
            pass
    read = time.perf_counter() - begun
    path.unlink()
    return MEGABYTES * 1e6 / written, MEGABYTES * 1e6 / read


def spread(record: dict) -> float:
    """Of whole shards, about the mean of each run."""
    logs = []
    for run in record.values():
        times = [
            math.log(sum(entry["seconds"].values()) / entry["rows"])
            for journal in run["journals"]
            for entry in journal
        ]
        logs += list(np.array(times) - np.mean(times))
    return float(np.std(logs))


if __name__ == "__main__":
    main()
