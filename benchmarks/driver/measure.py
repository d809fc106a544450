"""What the MPI driver costs: where a structure's time goes, weak scaling, memory over a long run.

    python benchmarks/driver/measure.py FOLDER [--frames 300000] [--short 12000] > record.md

The 20-residue example from its C-alpha trace with the shipped heavy-atom stage: the example's frames, over
and over, each moved by 0.01 nm of noise. Leaves FOLDER/driver.json and FOLDER/driver-memory.png. What is there
is not computed again; a long run that was stopped continues.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import psutil
import yaml

from hpcbackmap.backmapping.shipped import shipped_artifact
from hpcbackmap.config import StoreConfig
from hpcbackmap.frames.store import create_store
from hpcbackmap.protein.topology import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder

EXAMPLE = Path(__file__).parents[2] / "examples" / "trpcage"
NOISE = 0.01
SAMPLE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=300_000, help="of the long run")
    parser.add_argument("--short", type=int, default=12_000, help="frames per rank of the others")
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    make_input(folder, max(arguments.frames, 2 * arguments.short))
    results = folder / "driver.json"
    record = json.loads(results.read_text()) if results.exists() else {}
    for ranks in (1, 2):
        key = f"{ranks} rank(s)"
        if key not in record:
            frames = ranks * arguments.short
            record[key] = run(folder, f"short{ranks}", ranks, frames, arguments.cores)
            results.write_text(json.dumps(record, indent=1))
    if "long" not in record:
        record["long"] = run(folder, "long", 2, arguments.frames, arguments.cores)
        results.write_text(json.dumps(record, indent=1))
    plot(record["long"], folder / "driver-memory.png")
    print("\n".join(lines(record)))


def make_input(folder: Path, frames: int) -> None:
    """A store of C-alpha frames, and the campaign that backmaps it."""
    path = folder / "coarse.zarr"
    if not path.exists():
        loaded = mdtraj.load(str(EXAMPLE / "trpcage.xtc"), top=str(EXAMPLE / "trpcage_top.pdb"))
        topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], "example")
        trace = loaded.xyz[:, index][:, topology.ca_index]
        ladder = build_ladder(topology, ["fg", "ca"])
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / "coarse.part"
        store = create_store(
            scratch, {"example": ladder}, {"example": frames}, ["ca"], StoreConfig(), {}
        )
        system, rng = store.system("example"), np.random.default_rng(0)
        for shard in range(system.n_shards):
            numbers = np.arange(shard * system.shard_frames, frames)[: system.shard_frames]
            moved = trace[numbers % len(trace)]
            moved = moved + rng.normal(scale=NOISE, size=moved.shape)
            system.write_shard(shard, {"ca": moved.astype(np.float32)})
        store.mark_complete()
        scratch.rename(path)
    record = {
        "name": "driver",
        "workdir": str(folder),
        "ladder": ["fg", "ca"],
        "systems": [{"name": "example", "trajectories": [str(EXAMPLE / "trpcage.xtc")]}],
        "stages": {"ca-fg": {"model": {"kind": "genzprot"}, "artifact": str(shipped_artifact())}},
        "backmap": {"input": str(path), "members": 1, "batch_frames": 64},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(record))


def run(folder: Path, name: str, ranks: int, frames: int, cores) -> dict:
    """One run of the command, each rank on a core of its own: seconds, the ranks' journals, memory."""
    command = [
        *("mpirun", "-n", str(ranks), "--bind-to", "none", "--oversubscribe"),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *("bash", "-c", pinned(cores), "hpcbackmap"),
        *(sys.executable, "-m", "hpcbackmap", "backmap", str(folder / "campaign.yaml")),
        *(f"backmap.output={name}.zarr", f"backmap.frames=0:{frames}"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    begun = time.monotonic()
    log = (folder / f"{name}.log").open("a")
    with log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        memory = watch(process, folder / f"{name}.zarr")
    if process.returncode:
        sys.exit(f"{name} ended with {process.returncode}; see {folder / f'{name}.log'}")
    journals = sorted((folder / f"{name}.zarr" / ".shards").glob("rank*.jsonl"))
    entries = [
        [json.loads(line) for line in journal.read_text().splitlines()] for journal in journals
    ]
    return {
        "frames": frames,
        "ranks": ranks,
        "wall_seconds": time.monotonic() - begun,
        "journals": entries,
        "memory": memory,
    }


def pinned(cores) -> str:
    places = " ".join(map(str, cores))
    return f'cores=({places}); exec taskset -c "${{cores[$OMPI_COMM_WORLD_LOCAL_RANK]}}" "$@"'


def watch(process: subprocess.Popen, output: Path) -> list[list[float]]:
    """[seconds, shards done, MB of the largest rank] until the process ends."""
    seen, begun = [], time.monotonic()
    while process.poll() is None:
        time.sleep(SAMPLE_SECONDS)
        done = len(list((output / ".shards").glob("*.json")))
        sizes = []
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if "hpcbackmap" in child.cmdline():
                    sizes.append(child.memory_info().rss / 1e6)
            except psutil.Error:
                continue
        if sizes:
            seen.append([time.monotonic() - begun, done, max(sizes)])
    return seen


def split(record: dict) -> dict[str, float]:
    """Microseconds of a structure by what they go into, on the mean rank."""
    total, rows = {}, 0
    for entries in record["journals"]:
        for entry in entries:
            rows += entry["rows"]
            for name, seconds in entry["seconds"].items():
                total[name] = total.get(name, 0.0) + seconds
    return {name: 1e6 * seconds / rows for name, seconds in total.items()}


def lines(record: dict) -> list[str]:
    shown = [
        "| run | frames | wall s | " + " | ".join(PARTS) + " | sum, µs a structure |",
        "|---" * (len(PARTS) + 4) + "|",
    ]
    for name, entry in record.items():
        parts = split(entry)
        cells = [f"{parts.get(part, 0):.1f}" for part in PARTS]
        shown.append(
            f"| {name} | {entry['frames']} | {entry['wall_seconds']:.0f} | "
            + " | ".join(cells)
            + f" | {sum(parts.values()):.0f} |"
        )
    one, two = (sum(split(record[f"{n} rank(s)"]).values()) for n in (1, 2))
    memory = np.array(record["long"]["memory"])
    settled = memory[memory[:, 1] >= 2]
    half = len(settled) // 2
    shown += [
        "",
        f"Weak scaling, 1 to 2 ranks: {100 * one / two:.1f} % (time of a structure on its rank).",
        f"Memory of the largest rank in the long run: {settled[:half, 2].max():.0f} MB at most in the first "
        f"half, {settled[half:, 2].max():.0f} MB in the second.",
    ]
    return shown


PARTS = ("read", "compute", "write", "verify", "counter")


def plot(record: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    memory = np.array(record["memory"])
    shards = max(memory[:, 1].max(), 1)
    figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
    ax.plot(memory[:, 1] / shards * record["frames"] / 1e3, memory[:, 2], color="#0072B2")
    ax.set_xlabel("thousand structures written")
    ax.set_ylabel("MB of the largest rank")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
