"""What a card gives: structures per second, agreement with the CPU, training steps per second for ZeRO 0 to 3.

    python benchmarks/throughput/gpu.py [WORK] > RECORD.md          # about 20 minutes on one card
    python benchmarks/throughput/gpu.py WORK --device cpu --quick   # that it runs; figures mean nothing

Chains of 20 to 5,000 residues are made of the example protein, from their true C-alpha trace, with the shipped
stage in fp32; 1 and 10 members of a frame. Medians of repeats, after one that is thrown away; the clock
waits for the device. Training: the example campaign's ca-fg stage on one rank, its own metrics; beside its
peak the memory that `hpcbackmap inspect --stage` announces.
"""

import argparse
import contextlib
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from long_chains import chain_of, read_chain

from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.noise import frame_noise

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import REPOSITORY, header

SIZES = (20, 100, 200, 500, 1000, 5000)
MEMBERS = (1, 10)
RESIDUES = {"cuda": 20_000, "cpu": 1_000}
"""Of all frames of a batch together."""
REPEATS = 5
STEPS = 200
EXAMPLE = REPOSITORY / "examples" / "trpcage"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path, nargs="?", help="Folder for the trainings.")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="Two sizes, one repeat, ten steps.")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device here")
    keep_freed_memory()
    work = given.work or Path(tempfile.mkdtemp())
    print("\n".join(header("Speed on a card")), flush=True)
    print("\n".join(structures(given)), flush=True)
    print("\n".join(trainings(given, work)), flush=True)


@torch.no_grad()
def structures(given) -> list[str]:
    stage = load_artifact(shipped_artifact()).eval()
    chain = read_chain(str(EXAMPLE / "trpcage_top.pdb"))
    lines = [
        "## Cα to heavy atoms",
        "",
        "Structures per second. *From the CPU*: the largest difference of an atom of one answer of the same "
        "frame, Å; *bits*: two runs on the device agree to the last.",
        "",
        "| residues | frames | 1 member | 10 members | one answer | from the CPU | bits | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sizes = SIZES[:2] if given.quick else SIZES
    lines += [row(given, stage, residues, *chain_of(residues, *chain)) for residues in sizes]
    return [*lines, ""]


def row(given, stage, residues: int, topology, fine) -> str:
    device = torch.device(given.device)
    frames = max(1, RESIDUES[given.device] // residues)
    described = stage.describe(build_ladder(topology, ["fg", "ca"]))
    coarse = fine[:, torch.from_numpy(topology.ca_index)]
    coarse = coarse - coarse.mean(1, keepdim=True)
    here = stage.to("cpu").mode(coarse, collate([described]))
    stage, system = stage.to(device), collate([described]).to(device)
    many = coarse.repeat(frames, 1, 1).to(device)
    noises = [
        torch.from_numpy(
            frame_noise(0, stage.name, list(range(frames)), member, residues, stage.noise_width)
        ).to(device)
        for member in range(max(MEMBERS))
    ]
    if given.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    rates = []
    for count in MEMBERS:
        seconds = timed(given, lambda count=count: stage.samples(many, system, noises[:count]))
        rates.append(frames * count / seconds)
    once, again = (stage.mode(many[:1], system) for _ in range(2))
    one_answer = frames / timed(given, lambda: stage.mode(many, system))
    bits = "same" if torch.equal(once, again) else "**differ**"
    memory = torch.cuda.max_memory_allocated() / 1e6 if given.device == "cuda" else np.nan
    return (
        f"| {residues} | {frames} | {rates[0]:.1f} | {rates[1]:.1f} | {one_answer:.1f} "
        f"| {10 * (once.cpu() - here).abs().max():.2g} | {bits} "
        f"| {memory:.0f} |"
    )


def timed(given, work) -> float:
    """Median seconds."""
    found = []
    for _ in range(2 if given.quick else REPEATS + 1):
        begun = time.perf_counter()
        work()
        if given.device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return statistics.median(found[1:])


def trainings(given, work: Path) -> list[str]:
    steps = 10 if given.quick else STEPS
    common = [
        f"store.path={work / 'frames.zarr'}", f"stages.ca-fg.train.max_steps={steps}",
        "stages.ca-fg.train.max_minutes=30", "stages.ca-fg.train.log_every=5",
        f"stages.ca-fg.train.validate_every={steps}",
    ]  # fmt: skip
    campaign = str(EXAMPLE / "campaign.yaml")
    run(["ingest", campaign, *common, f"workdir={work}"])
    lines = [
        "## Training",
        "",
        f"Stage ca-fg of the example campaign, one rank, {steps} steps; median of the later half.",
        "",
        "| ZeRO | steps/s | frames/s | peak, MB | announced with activations, MB |",
        "|---|---|---|---|---|",
    ]
    for zero in range(2) if given.quick else range(4):
        folder = work / f"zero{zero}"
        chosen = [*common, f"workdir={folder}", f"stages.ca-fg.train.zero_stage={zero}"]
        memory = json.loads(run(["inspect", campaign, *chosen, "--stage", "ca-fg", "--json"]))
        (announced,) = (
            each["total"]
            for each in memory["ranks"]
            if (each["ranks"], each["zero_stage"]) == (1, zero)
        )
        run(["train", campaign, *chosen, "--stage", "ca-fg"])
        with next(folder.rglob("metrics.csv")).open() as handle:
            rows = [each for each in csv.DictReader(handle) if each["kind"] == "train"]
        later = rows[len(rows) // 2 :]
        frames = statistics.median(float(each["frames_per_second"]) for each in later)
        peak = max(float(each["peak_memory_mb"]) for each in later)
        steps_each = frames / memory["batch_size"]
        lines.append(
            f"| {zero} | {steps_each:.2f} | {frames:.1f} | {peak:.0f} | {announced / 1e6:.0f} |"
        )
    return [*lines, ""]


def run(words: list[str]) -> str:
    command = [sys.executable, "-m", "hpcbackmap", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
