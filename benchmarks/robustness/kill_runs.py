"""Kill ingest or backmapping again and again: the store must be that of the run that nobody disturbed.

    python benchmarks/robustness/kill_runs.py ingest FOLDER [--kills 20] [--seed 0] > record.md
    python benchmarks/robustness/kill_runs.py backmap FOLDER [--kills 20] [--seed 0] > record.md

Two systems of the 20-residue example, three trajectories each, under mpirun with two ranks; backmapping takes
the C-alpha atoms of what an undisturbed ingest has stored, with the shipped stage. At random moments, from the
start of the processes to shortly after the first new shard, all of them or one rank get SIGKILL; the same
command is started again. At the end the SHA-256 of everything in the store is compared.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import yaml

from hpcbackmap.runtime.mpi import LocalComm
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.store.verify import verify_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header
from trajectories import EXAMPLE, write_trajectory

SYSTEMS = ("a", "b")
FILES = 3
"""Trajectories of each system."""
FRAMES = 20_000
"""Of each trajectory."""
STARTING = 4.0
"""Seconds from the start in which a third of the kills come; the others come after a run's first new shard."""


@dataclass(frozen=True)
class Case:
    """options: of the command, with a place for the name of the store. records: where there is one of each
    finished shard. longest: seconds after the first new one in which a run is killed."""

    options: tuple[str, ...]
    records: str
    longest: float


CASES = {
    "ingest": Case(("store.path={}.zarr",), "{}.zarr.partial/.written", 0.4),
    "backmap": Case(("backmap.output={}.zarr",), "{}.zarr/.shards", 2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("command", choices=CASES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    command, folder = arguments.command, arguments.folder.resolve()
    make_campaign(folder)
    if command == "backmap" and start("ingest", folder, "frames").wait():
        sys.exit(f"ingest failed; see {folder / 'frames.log'}")
    if start(command, folder, "undisturbed").wait():
        sys.exit(f"the undisturbed run failed; see {folder / 'undisturbed.log'}")
    rng, kills = np.random.default_rng(arguments.seed), []
    while len(kills) < arguments.kills:
        process = start(command, folder, "killed")
        killed = kill(process, CASES[command], folder, rng)
        code = process.wait()
        if killed is None:
            break
        kills.append(killed)
        print(f"kill {len(kills)}: {killed}, exit code {code}", file=sys.stderr, flush=True)
    last = start(command, folder, "killed").wait()
    store, other = (
        verify_store(folder / f"{name}.zarr", LocalComm()) for name in ("killed", "undisturbed")
    )
    same = store["content"] == other["content"]
    everyone = sum(kill.startswith("all") for kill in kills)
    print("\n".join(header("Runs killed")))
    print(
        f"{len(kills)} kills, {everyone} of all processes, the others of one rank. Last run: exit code {last}; "
        f"{store['frames']} frames in {store['shards']} shards; same SHA-256 of all data: {same}."
    )
    sys.exit(0 if same and not last and len(kills) == arguments.kills else 1)


def make_campaign(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: [folder / f"{name}{number}.xtc" for number in range(FILES)] for name in SYSTEMS}
    for seed, path in enumerate(path for paths in files.values() for path in paths):
        write_trajectory(path, FRAMES, seed)
    top = str(EXAMPLE / "trpcage_top.pdb")
    record = {
        "name": "kill",
        "workdir": str(folder),
        "ladder": ["fg", "ca"],
        "store": {"chunk_mb": 0.1, "shard_mb": 0.25},
        "systems": [
            {"name": name, "topology": top, "trajectories": list(map(str, paths))}
            for name, paths in files.items()
        ],
        "stages": {"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(shipped_artifact())}},
        "backmap": {
            "input": str(folder / "frames.zarr"),
            "frames": "::4",
            "members": 1,
            "batch_frames": 64,
            "shard_frames": 64,
        },
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))


def start(command: str, folder: Path, name: str) -> subprocess.Popen:
    whole = [
        *("mpirun", "-n", "2", "--oversubscribe"),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *(sys.executable, "-m", "hpcbackmap", command, str(folder / "campaign.yaml")),
        *(option.format(name) for option in CASES[command].options),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    with (folder / f"{name}.log").open("a") as log:
        return subprocess.Popen(whole, env=environment, stdout=log, stderr=log)


def kill(
    process: subprocess.Popen, case: Case, folder: Path, rng: np.random.Generator
) -> str | None:
    """What was killed and when; None if the run ended before."""

    def done() -> int:
        return len(list((folder / case.records.format("killed")).glob("*.json")))

    before, early = done(), rng.random() < 1 / 3
    while not early and done() <= before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, STARTING if early else case.longest))
    if process.poll() is not None:
        return None
    children = psutil.Process(process.pid).children(recursive=True)
    ranks = [child for child in children if "hpcbackmap" in child.cmdline()]
    shards = done()
    if len(ranks) == 2 and rng.random() < 0.5:
        ranks[int(rng.integers(2))].send_signal(signal.SIGKILL)
        return f"one rank, {shards} shards done"
    for child in [*children, process]:
        child.send_signal(signal.SIGKILL)
    return f"all, {shards} shards done"


if __name__ == "__main__":
    main()
