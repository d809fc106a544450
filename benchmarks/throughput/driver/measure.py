r"""What the MPI driver costs: where a structure's time goes, weak scaling, memory over a long run.

    python benchmarks/throughput/driver/measure.py FOLDER \
        [--frames 300000] [--short 12000] [--turns 3] > record.md

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

from hpcbackmap.config.campaign import StoreConfig
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.store.store import create_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from header import header

EXAMPLE = Path(__file__).parents[3] / "examples" / "trpcage"
NOISE = 0.01
LONG = "2 ranks, long"
SAMPLE_SECONDS = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=300_000, help="of the long run")
    parser.add_argument("--short", type=int, default=12_000, help="frames per rank of the others")
    parser.add_argument("--turns", type=int, default=3, help="of one and two ranks")
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1))
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    make_input(folder, max(arguments.frames, 2 * arguments.short))
    results = folder / "driver.json"
    record = json.loads(results.read_text()) if results.exists() else {}
    for turn in range(arguments.turns):
        for ranks in (1, 2):
            key = f"{ranks} rank(s), turn {turn + 1}"
            if key not in record:
                options = [f"backmap.output=short{ranks}-{turn}.zarr"]
                options.append(f"backmap.frames=0:{ranks * arguments.short}")
                record[key] = run(folder, ranks, options, arguments.cores)
                results.write_text(json.dumps(record, indent=1))
    if LONG not in record:
        options = ["backmap.output=long.zarr", f"backmap.frames=0:{arguments.frames}"]
        record[LONG] = run(folder, 2, options, arguments.cores)
        results.write_text(json.dumps(record, indent=1))
    plot(record[LONG], folder / "driver-memory.png")
    print("\n".join([*header("Driver"), *lines(record)]))


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


def run(folder: Path, ranks: int, options: list[str], cores) -> dict:
    """One run of the command, each rank on a core of its own: seconds, the ranks' journals, memory.

    options: of the command; the first one names the output.
    """
    output = folder / options[0].partition("=")[2]
    command = [
        *("mpirun", "-n", str(ranks), "--bind-to", "none", "--oversubscribe"),
        *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        *("bash", "-c", pinned(cores), "hpcbackmap"),
        *(sys.executable, "-m", "hpcbackmap", "backmap", str(folder / "campaign.yaml")),
        *options,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_osc": "^ucx"}
    begun = time.monotonic()
    log = output.with_suffix(".log").open("a")
    with log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        memory = watch(process, output)
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}; see {log.name}")
    journals = sorted((output / ".shards").glob("rank*.jsonl"))
    entries = [
        [json.loads(line) for line in journal.read_text().splitlines()] for journal in journals
    ]
    return {
        "rows": sum(entry["rows"] for journal in entries for entry in journal),
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
        "| run | structures | wall s | " + " | ".join(PARTS) + " | sum, µs a structure |",
        "|---" * (len(PARTS) + 4) + "|",
    ]
    for name, entry in record.items():
        parts = split(entry)
        cells = [f"{parts.get(part, 0):.1f}" for part in PARTS]
        shown.append(
            f"| {name} | {entry['rows']} | {entry['wall_seconds']:.0f} | "
            + " | ".join(cells)
            + f" | {sum(parts.values()):.0f} |"
        )
    turns = [name.partition(", ")[2] for name in record if name.startswith("1 rank(s)")]
    ratios = []
    for turn in turns:
        one, two = (sum(split(record[f"{n} rank(s), {turn}"]).values()) for n in (1, 2))
        ratios.append(100 * one / two)
    memory = np.array(record[LONG]["memory"])
    settled = memory[memory[:, 1] >= 2]
    half = len(settled) // 2
    shown += [
        "",
        f"Weak scaling, 1 to 2 ranks (time of a structure on its rank): {np.median(ratios):.1f} % "
        f"({min(ratios):.1f} to {max(ratios):.1f} over turns).",
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
    ax.plot(memory[:, 1] / shards * record["rows"] / 1e3, memory[:, 2], color="#0072B2")
    ax.set_xlabel("thousand structures written")
    ax.set_ylabel("MB of the largest rank")
    ax.set_ylim(bottom=0)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
