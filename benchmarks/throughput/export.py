"""What export costs: frames a second and memory, for every format, on one and two ranks.

    python benchmarks/throughput/export.py STORE FOLDER [--frames 20000 100000] [--turns 3] > record.md

STORE: a backmapped one with so many structures of heavy atoms, for example long.zarr of
`benchmarks/throughput/driver/measure.py`. The floor is a process that reads all
frames at once and has mdtraj write them. Runs of a turn follow one another.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
from ingest import on_ranks, watched

from hpcbackmap.store.store import open_store
from hpcbackmap.trajectories.writer import TrajectoryWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--floor", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.floor:
        floor(arguments.store, arguments.floor, arguments.frames[0])
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print("\n".join(header("Export")))
    print(
        "| format | frames | ranks | frames/s | of the floor | peak MB of a rank |\n|---|---|---|---|---|---|"
    )
    for suffix in ("xtc", "dcd", "pdb"):
        for frames in arguments.frames:
            output = arguments.folder / f"out.{suffix}"
            least, found = [], {1: [], 2: []}
            for _ in range(arguments.turns):
                least.append(floor_seconds(arguments.store, output, frames))
                for ranks, runs in found.items():
                    command = [
                        "export",
                        str(arguments.store),
                        "-o",
                        str(output),
                        "--stop",
                        str(frames),
                    ]
                    runs.append(watched(on_ranks(ranks, command)))
            output.unlink()
            for ranks, runs in found.items():
                pairs = zip(least, runs, strict=True)
                share = statistics.median(one / run[0] for one, run in pairs)
                rate = frames / statistics.median(run[0] for run in runs)
                peak = max(run[1] for run in runs)
                print(
                    f"| {suffix} | {frames} | {ranks} | {rate:.0f} | {share:.2f} | {peak:.0f} |",
                    flush=True,
                )


def floor_seconds(store: Path, output: Path, frames: int) -> float:
    command = [sys.executable, __file__, str(store), str(output.parent), "--frames", str(frames)]
    return watched([*command, "--floor", str(output)])[0]


def floor(path: Path, output: Path, frames: int) -> None:
    """Everything read at once, then written."""
    store = open_store(path)
    system = store.system(store.systems[0])
    positions, numbers = system.read("fg", 0, frames), np.arange(frames)
    with TrajectoryWriter(output, system.ladder.topology.to_mdtraj()) as file:
        file.append(positions, numbers, numbers)


if __name__ == "__main__":
    main()
