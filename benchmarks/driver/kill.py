"""Kill the driver again and again: the output must be that of the run that nobody disturbed.

    python benchmarks/driver/kill.py FOLDER [--kills 20] [--seed 0] > record.md

Backmaps the 20-residue example under mpirun with two ranks. At random moments, from the start of the processes
to the last shard, all of them or one rank get SIGKILL; the same command is started again. At the end the
SHA-256 of everything in the store is compared.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from measure import make_input

from hpcbackmap.frames.store import open_store

SHARD = 64
LONGEST = 4.0
"""Seconds after a run's first new shard in which it is killed; a third of the kills come before that shard."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    make_input(folder, arguments.frames)
    rng = np.random.default_rng(arguments.seed)
    if start(folder, "undisturbed").wait():
        sys.exit(f"the undisturbed run failed; see {folder / 'undisturbed.log'}")
    kills, codes = [], []
    while len(kills) < arguments.kills:
        process = start(folder, "killed")
        killed = kill(process, folder, rng)
        codes.append(process.wait())
        if killed is None:
            break
        kills.append(killed)
        print(f"kill {len(kills)}: {killed}, exit code {codes[-1]}", file=sys.stderr, flush=True)
    last = start(folder, "killed").wait()
    same = digest(folder / "killed.zarr") == digest(folder / "undisturbed.zarr")
    print(
        f"{len(kills)} kills ({sum('all' in k for k in kills)} of all processes, others of one rank)"
    )
    print(f"last run: exit code {last}; same SHA-256 of all data: {same}")
    sys.exit(0 if same and not last and len(kills) == arguments.kills else 1)


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [
        *("mpirun", "-n", "2", "--oversubscribe"),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *(sys.executable, "-m", "hpcbackmap", "backmap", str(folder / "campaign.yaml")),
        *(f"backmap.output={name}.zarr", f"backmap.shard_frames={SHARD}"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def kill(process: subprocess.Popen, folder: Path, rng: np.random.Generator) -> str | None:
    """What was killed and when; None if the run ended before."""
    records = folder / "killed.zarr" / ".shards"
    before = len(list(records.glob("*.json")))
    early = rng.random() < 1 / 3
    if not early:
        while len(list(records.glob("*.json"))) == before and process.poll() is None:
            time.sleep(0.01)
    time.sleep(rng.uniform(0, 2 * LONGEST if early else LONGEST))
    if process.poll() is not None:
        return None
    ranks = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "hpcbackmap" in child.cmdline()
    ]
    done = len(list(records.glob("*.json")))
    if len(ranks) == 2 and rng.random() < 0.5:
        which = int(rng.integers(2))
        ranks[which].send_signal(signal.SIGKILL)
        return f"one rank, {done} shards done"
    for child in [*psutil.Process(process.pid).children(recursive=True), process]:
        child.send_signal(signal.SIGKILL)
    return f"all, {done} shards done"


def digest(path: Path) -> str:
    store, found = open_store(path), hashlib.sha256()
    for name in store.systems:
        system = store.system(name)
        for start in range(0, system.n_frames, system.shard_frames):
            rows = start, min(system.n_frames, start + system.shard_frames)
            for resolution in store.resolutions:
                found.update(system.read(resolution, *rows).tobytes())
            for observable in system.observables:
                found.update(system.read_observable(observable, *rows).tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
