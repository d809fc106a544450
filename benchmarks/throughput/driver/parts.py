"""What "compute" of the driver's journal is made of, on one core and on two at once.

    python benchmarks/throughput/driver/parts.py FOLDER [--turns 5]

Processes on a core each draw members of the 20-residue example from its C-alpha trace in batches of 64 with
the shipped heavy-atom stage. Functions of the stage are timed, each without those that it calls. "default"
leaves the C library's allocator as it is, "kept" is what every command does. All variants take turns.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from measure import make_input

from hpcbackmap.backmapping import chain as chain_module
from hpcbackmap.backmapping.chain import Chain, Descent, load_chain
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.genzprot import (
    chain_ends,
    drawing,
    ideal_geometry,
    model,
    network,
    packing,
    place_side_chains,
    planes,
)
from hpcbackmap.stages.layers import geometry
from hpcbackmap.store.store import open_store

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from header import header

BATCH = 64
BATCHES = 40
PARTS = {
    "noise": [(chain_module, "frame_noise")],
    "network": [
        (model.Genzprot, "_context"),
        (planes.PlaneHead, "draw"),
        (chain_ends.EndHead, "torsions"),
        (packing.PackingHead, "see"),
        (packing.PackingHead, "logits"),
        (packing.PackingHead, "after"),
    ],
    "neighbours": [(geometry, "nearest")],
    "placement": [
        (ideal_geometry, "expected_geometry"),
        (network, "angle_tables"),
        (drawing, "backbone_atoms"),
        (network, "make_scene"),
        (drawing, "side_chain_rows"),
        (drawing, "add_side_chains"),
        (drawing, "flat"),
    ],
    "overlaps": [(place_side_chains, "overlaps")],
}
"""Functions of each part; "rest" is what is in none."""
RUNNING: list[str] = []
"""Parts whose functions are under way, one called by another."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--child", choices=("default", "kept"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments.folder, arguments.child == "kept")))
        return
    make_input(arguments.folder.resolve(), BATCH * BATCHES)
    found: dict[tuple, list[dict]] = {}
    for _ in range(arguments.turns):
        for variant in ("default", "kept"):
            for ranks in (1, 2):
                results = run(arguments.folder, variant, ranks)
                mean = {key: statistics.mean(r[key] for r in results) for key in results[0]}
                found.setdefault((variant, ranks), []).append(mean)
    print("\n".join([*header("Parts of computing"), *lines(found)]))


def run(folder: Path, variant: str, ranks: int) -> list[dict]:
    """Processes that begin together, each on a core of its own."""
    processes = [
        subprocess.Popen(
            ["taskset", "-c", str(rank), sys.executable, __file__, str(folder), "--child", variant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(ranks)
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in processes]


def child(folder: Path, kept: bool) -> dict[str, float]:
    """Microseconds of a structure by part; page faults and system time too."""
    if kept:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.set_deterministic_debug_mode("warn")
    system = open_store(folder / "coarse.zarr").system("example")
    (stage,) = load_chain({"ca-fg": shipped_artifact()}, ["ca-fg"])
    chain = Chain([stage], system.ladder, torch.device("cpu"))
    coarse = system.read("ca", 0, BATCH * BATCHES)

    def draw(batch: int) -> None:
        frames = range(batch * BATCH, (batch + 1) * BATCH)
        chain.run(Descent(coarse[frames.start : frames.stop], list(frames), [0], 0))

    spent: Counter = Counter()
    for name, functions in PARTS.items():
        for owner, function in functions:
            setattr(owner, function, timed(getattr(owner, function), name, spent))
    for batch in range(5):
        draw(batch)
    print("ready", flush=True)
    sys.stdin.readline()
    spent.clear()
    usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for batch in range(BATCHES):
        draw(batch)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    found = {name: spent[name] for name in PARTS}
    found["rest"] = seconds - sum(found.values())
    found |= {"sum": seconds, "of it in the system": after.ru_stime - usage.ru_stime}
    found = {name: 1e6 * value / (BATCH * BATCHES) for name, value in found.items()}
    return found | {
        "page faults a batch": (after.ru_minflt - usage.ru_minflt) / BATCHES,
        "peak MB": after.ru_maxrss / 1e3,
    }


def timed(function: Callable, name: str, spent: Counter) -> Callable:
    """Seconds of the function go to ``spent[name]``, those of timed functions that it calls do not."""

    def wrapped(*args, **kwargs):
        begun = time.perf_counter()
        RUNNING.append(name)
        try:
            return function(*args, **kwargs)
        finally:
            RUNNING.pop()
            seconds = time.perf_counter() - begun
            spent[name] += seconds
            if RUNNING:
                spent[RUNNING[-1]] -= seconds

    return wrapped


def lines(found: dict[tuple, list[dict]]) -> list[str]:
    names = list(next(iter(found.values()))[0])
    shown = [
        "µs of a structure, medians over turns; efficiency: one process alone over two at once.",
        "",
        "| allocator | processes | " + " | ".join(names) + " | efficiency |",
        "|---" * (len(names) + 3) + "|",
    ]
    for (variant, ranks), turns in found.items():
        cells = [f"{statistics.median(turn[name] for turn in turns):.0f}" for name in names]
        alone = found[variant, 1]
        ratios = [one["sum"] / this["sum"] for one, this in zip(alone, turns, strict=True)]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        shown.append(
            f"| {variant} | {ranks} | {' | '.join(cells)} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return shown


if __name__ == "__main__":
    main()
