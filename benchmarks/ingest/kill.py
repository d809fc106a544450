"""Kill ingest again and again: the store must be that of the run that nobody disturbed.

    python benchmarks/ingest/kill.py FOLDER [--kills 20] [--seed 0] > record.md

Six trajectories of two systems under mpirun with two ranks. At random moments, from the start of the processes
to shortly after the first new shard, all of them or one rank get SIGKILL; the same command is started again.
At the end every file of the store is compared.
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
import yaml
from trajectories import EXAMPLE, write_trajectory

from hpcbackmap.frames.store import open_store

SYSTEMS = ("a", "b")
FILES = 3
"""Trajectories of each system."""
LONGEST = 0.4
"""Seconds after a run's first new shard in which it is killed; a third of the kills come before that shard."""
STARTING = 4.0
"""Seconds in which those come."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--frames", type=int, default=20_000, help="of each trajectory")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    make_campaign(folder, arguments.frames)
    rng = np.random.default_rng(arguments.seed)
    if start(folder, "undisturbed").wait():
        sys.exit(f"the undisturbed run failed; see {folder / 'undisturbed.log'}")
    kills = []
    while len(kills) < arguments.kills:
        process = start(folder, "killed")
        killed = kill(process, folder, rng)
        code = process.wait()
        if killed is None:
            break
        kills.append(killed)
        print(f"kill {len(kills)}: {killed}, exit code {code}", file=sys.stderr, flush=True)
    last = start(folder, "killed").wait()
    same = digest(folder / "killed.zarr") == digest(folder / "undisturbed.zarr")
    store = open_store(folder / "killed.zarr")
    frames = sum(store.system(name).n_frames for name in store.systems)
    shards = sum(store.system(name).n_shards for name in store.systems)
    everyone = sum(kill.startswith("all") for kill in kills)
    print(f"{len(kills)} kills, {everyone} of all processes, the others of one rank.")
    print(
        f"Last run: exit code {last}; {frames} of {len(SYSTEMS) * FILES * arguments.frames} frames in "
        f"{shards} shards; all files equal: {same}."
    )
    sys.exit(0 if same and not last and len(kills) == arguments.kills else 1)


def make_campaign(folder: Path, frames: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: [folder / f"{name}{number}.xtc" for number in range(FILES)] for name in SYSTEMS}
    for seed, path in enumerate(path for paths in files.values() for path in paths):
        write_trajectory(path, frames, seed)
    top = str(EXAMPLE / "trpcage_top.pdb")
    record = {
        "name": "kill",
        "workdir": str(folder),
        "ladder": ["fg", "ca", "ucg:5"],
        "store": {"chunk_mb": 0.1, "shard_mb": 0.25},
        "systems": [
            {"name": name, "topology": top, "trajectories": list(map(str, paths))}
            for name, paths in files.items()
        ],
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))


def start(folder: Path, name: str) -> subprocess.Popen:
    command = [
        *("mpirun", "-n", "2", "--oversubscribe"),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *(sys.executable, "-m", "hpcbackmap", "ingest", str(folder / "campaign.yaml")),
        f"store.path={name}.zarr",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def kill(process: subprocess.Popen, folder: Path, rng: np.random.Generator) -> str | None:
    """What was killed and when; None if the run ended before."""
    records = folder / "killed.zarr.partial" / ".written"
    before = len(list(records.glob("*.json")))
    early = rng.random() < 1 / 3
    if not early:
        while len(list(records.glob("*.json"))) <= before and process.poll() is None:
            time.sleep(0.01)
    time.sleep(rng.uniform(0, STARTING if early else LONGEST))
    if process.poll() is not None:
        return None
    ranks = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "hpcbackmap" in child.cmdline()
    ]
    done = len(list(records.glob("*.json")))
    if len(ranks) == 2 and rng.random() < 0.5:
        ranks[int(rng.integers(2))].send_signal(signal.SIGKILL)
        return f"one rank, {done} shards done"
    for child in [*psutil.Process(process.pid).children(recursive=True), process]:
        child.send_signal(signal.SIGKILL)
    return f"all, {done} shards done"


def digest(store: Path) -> str:
    """SHA-256 of all names and contents."""
    found = hashlib.sha256()
    for path in sorted(item for item in store.rglob("*") if item.is_file()):
        found.update(str(path.relative_to(store)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
