"""What ingest costs: memory over the length of a trajectory, and time beside the least it could take.

    python benchmarks/throughput/ingest.py FOLDER [--frames 10000 80000 320000] [--turns 3] > record.md

Trajectories of the 20-residue example (XTC), ladder fg, ca, ucg:5. The floor is to read the same file with
mdtraj in pieces of 1,000 frames, and to write the same three arrays into Zarr with the store's
chunks, shards and codec, each rank its part. Runs of a turn follow one another.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import psutil
import yaml

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.store.store import create_store

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header
from trajectories import EXAMPLE, write_trajectory

LADDER = ["fg", "ca", "ucg:5"]
TOP = EXAMPLE / "trpcage_top.pdb"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 80_000, 320_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--floor", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.floor:
        floor(arguments.floor, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    print("\n".join(header("Ingest")))
    print(
        "| frames | raw MB | ranks | frames/s | of the floor | peak MB of a rank |\n|---|---|---|---|---|---|"
    )
    for frames in arguments.frames:
        path = folder / f"{frames}.xtc"
        write_trajectory(path, frames)
        write_campaign(folder, path)
        ingest = ["ingest", str(folder / "campaign.yaml")]
        found: dict[str, list] = {"floor": [], "1": [], "2": []}
        for _ in range(arguments.turns):
            found["floor"].append(watched(floor_command(path, folder)))
            for ranks in ("1", "2"):
                shutil.rmtree(folder / "frames.zarr", ignore_errors=True)
                found[ranks].append(watched(on_ranks(int(ranks), ingest)))
        for kind, runs in found.items():
            least = zip(found["floor"], runs, strict=True)
            share = statistics.median(one[0] / other[0] for one, other in least)
            seconds = statistics.median(run[0] for run in runs)
            peak = max(run[1] for run in runs)
            raw = 12e-6 * frames * (155 + 20 + 5)
            print(
                f"| {frames} | {raw:.0f} | {kind} | {frames / seconds:.0f} | {share:.2f} | {peak:.0f} |",
                flush=True,
            )


def write_campaign(folder: Path, trajectory: Path) -> None:
    record = {
        "name": "measure",
        "workdir": str(folder),
        "ladder": LADDER,
        "systems": [{"name": "a", "topology": str(TOP), "trajectories": [str(trajectory)]}],
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))


def on_ranks(ranks: int, command: list[str]) -> list[str]:
    """A command of the package on so many ranks."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    launcher = ["mpirun", "-n", str(ranks), "--oversubscribe", "--bind-to", "none", *root]
    return [*(launcher if ranks > 1 else []), sys.executable, "-m", "hpcbackmap", *command]


def floor_command(trajectory: Path, folder: Path) -> list[str]:
    return [sys.executable, __file__, str(folder), "--floor", str(trajectory)]


def floor(trajectory: Path, folder: Path) -> None:
    """Read and write, nothing between."""
    frame = mdtraj.load(str(TOP))
    topology, index, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], "example")
    ladder = build_ladder(topology, LADDER)
    with mdtraj.open(str(trajectory)) as file:
        n_frames = len(file)
    shutil.rmtree(folder / "floor.zarr", ignore_errors=True)
    levels = list(ladder.resolutions)
    store = create_store(
        folder / "floor.zarr", {"a": ladder}, {"a": n_frames}, levels, StoreConfig(), {}
    )
    system, held = store.system("a"), []
    chosen = ladder.coarsen(frame.xyz[:, index])
    shard = 0
    for piece in mdtraj.iterload(str(trajectory), top=str(TOP), chunk=1000):
        held.append(piece.xyz)
        while sum(map(len, held)) >= system.shard_frames or (
            held and shard * system.shard_frames + sum(map(len, held)) == n_frames
        ):
            frames = np.concatenate(held)
            rows, held = frames[: system.shard_frames], [frames[system.shard_frames :]]
            arrays = {"fg": rows} | {
                name: np.ascontiguousarray(rows[:, : chosen[name].shape[1]]) for name in levels[1:]
            }
            system.write_shard(shard, arrays)
            shard += 1
            if not len(held[0]):
                held = []


def watched(command: list[str]) -> tuple[float, float]:
    """Seconds, and MB of its largest process at most."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun, peak = time.monotonic(), 0.0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        time.sleep(0.05)
        try:
            everyone = [psutil.Process(process.pid)]
            everyone += everyone[0].children(recursive=True)
            peak = max([peak, *(one.memory_info().rss / 1e6 for one in everyone)])
        except psutil.Error:
            continue
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - begun, peak


if __name__ == "__main__":
    main()
