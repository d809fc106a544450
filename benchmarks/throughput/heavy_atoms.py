"""What C-alpha to heavy atoms costs: CPU time and memory against the number of residues.

    python benchmarks/throughput/heavy_atoms.py PDB [--artifact FOLDER] [--json FILE] [--plot FILE] > RECORD.md

PDB holds one chain; longer ones are made of it. Everything runs on one thread and is CPU time of the process, a
median of repeats in which the variants take turns. Without --artifact the weights are random: their side
chains run into each other more, so that redraws cost more than of a trained stage.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from long_chains import chain_of, read_chain
from products import Products, product_rate

from hpcbackmap.config.campaign import GenzprotConfig
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate
from hpcbackmap.stages.genzprot.model import Genzprot

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import machine

SIZES = (46, 86, 214, 351, 1000, 2000, 5000)
BATCH = 16
RESIDUES = 3500
"""Frames of a batch hold no more residues than this, and no more frames than `BATCH`."""
REPEATS = 5
TRAINING_SIZE, TRAINING_BATCH = 214, 4
MEMBERS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pdb")
    parser.add_argument("--artifact", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument(
        "--memory", nargs=3, metavar=("WHAT", "RESIDUES", "FRAMES"), help=argparse.SUPPRESS
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if given.memory:
        what, residues, frames = given.memory
        print(peak_growth(given, what, int(residues), int(frames)))
        return
    result = {
        "machine": f"{machine()} One thread",
        "weights": "trained" if given.artifact else "random",
        "rate": product_rate(),
        "sizes": [measure(given, residues) for residues in given.sizes],
        "training_step_seconds": training_step(given),
        "training_growth_mb": in_child(given, "train", TRAINING_SIZE, TRAINING_BATCH),
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    if given.plot:
        plot(result, given.plot)
    print(table(result))


def stage_of(given, redraws: int | None = None) -> Genzprot:
    if given.artifact is None:
        torch.manual_seed(0)
        stage = Genzprot("fg", "ca", GenzprotConfig())
    else:
        stage = load_artifact(given.artifact)
    if redraws is not None:
        other = Genzprot("fg", "ca", stage.config.model_copy(update={"redraws": redraws}))
        other.load_state_dict(stage.state_dict())
        stage = other
    return stage.eval()


def inputs(given, residues: int, frames: int):
    """Topology, fine and coarse positions [F, n, 3] of a chain cut or grown to ``residues``."""
    topology, fine = chain_of(residues, *read_chain(given.pdb))
    fine = fine.repeat(frames, 1, 1)
    return topology, fine, fine[:, torch.from_numpy(topology.ca_index)]


def measure(given, residues: int) -> dict:
    """CPU milliseconds a frame of every way out of the stage, for one length."""
    frames = max(1, min(BATCH, RESIDUES // residues))
    topology, _, coarse = inputs(given, residues, frames)
    stage, plain = stage_of(given), stage_of(given, redraws=0)
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    generator = torch.Generator().manual_seed(0)
    noises = torch.randn(MEMBERS, *coarse.shape[:2], stage.noise_width, generator=generator)
    short = [noise[..., : plain.noise_width] for noise in noises]
    seconds = medians(
        {
            "sample": lambda: stage.samples(coarse, system, [noises[0]]),
            "members": lambda: stage.samples(coarse, system, list(noises)),
            "no_redraw": lambda: plain.samples(coarse, system, short[:1]),
            "mode": lambda: stage.mode(coarse, system),
            "one": lambda: stage.samples(coarse[:1], system, [noises[0, :1]]),
        }
    )
    with Products() as products:
        stage.samples(coarse, system, [noises[0]])
    per_frame = {name: 1e3 * value / frames for name, value in seconds.items()}
    return {
        "residues": residues,
        "frames": frames,
        "sample_ms": per_frame["sample"],
        "mode_ms": per_frame["mode"],
        "further_member_ms": (per_frame["members"] - per_frame["sample"]) / (MEMBERS - 1),
        "redraw_ms": per_frame["sample"] - per_frame["no_redraw"],
        "sample_alone_ms": 1e3 * seconds["one"],
        "megaflops": products.flops / frames / 1e6,
        "product_megabytes": products.bytes / frames / 1e6,
        "growth_mb_per_frame": in_child(given, "sample", residues, frames) / frames,
    }


def training_step(given) -> float:
    """CPU seconds of one optimiser step on `TRAINING_BATCH` frames."""
    step = training(given, TRAINING_SIZE, TRAINING_BATCH)
    return medians({"step": step})["step"]


def training(given, residues: int, frames: int):
    topology, fine, coarse = inputs(given, residues, frames)
    stage = stage_of(given).train()
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    noise = torch.randn(*coarse.shape[:2], max(stage.elbo_noise, 1))
    optimiser = torch.optim.AdamW(stage.parameters(), 1e-6)

    def step() -> None:
        optimiser.zero_grad()
        stage.loss(fine, coarse, system, noise)["loss"].backward()
        optimiser.step()

    return step


def medians(variants: dict) -> dict[str, float]:
    """Median CPU seconds of each; they take turns, so that a busy machine treats them alike."""
    seconds = {name: [] for name in variants}
    for repeat in range(REPEATS + 1):
        for name, run in variants.items():
            begun = time.process_time()
            run()
            if repeat:
                seconds[name].append(time.process_time() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def in_child(given, what: str, residues: int, frames: int) -> float:
    """`peak_growth` in a process of its own."""
    command = [sys.executable, __file__, given.pdb, "--memory", what, str(residues), str(frames)]
    if given.artifact:
        command += ["--artifact", str(given.artifact)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def peak_growth(given, what: str, residues: int, frames: int) -> float:
    """MB by which peak resident memory grows over a sample or a few training steps, after a tiny one."""
    build = {"sample": sampling, "train": training}[what]
    build(given, min(SIZES), 1)()
    run = build(given, residues, frames)
    before = peak_kb()
    for _ in range(3):
        run()
    return (peak_kb() - before) / 1024


def peak_kb() -> int:
    """Peak resident memory of this process; not `getrusage`, which passes on the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def sampling(given, residues: int, frames: int):
    topology, _, coarse = inputs(given, residues, frames)
    stage = stage_of(given)
    system = collate([stage.describe(build_ladder(topology, ["fg", "ca"]))])
    noise = torch.randn(*coarse.shape[:2], stage.noise_width)
    return lambda: stage.sample(coarse, system, noise)


def table(result: dict) -> str:
    """Markdown."""
    rate = result["rate"]
    lines = [
        f"{result['machine']}; {result['weights']} weights; a large float32 product runs at "
        f"{rate / 1e9:.0f} Gflop/s. CPU milliseconds a frame.",
        "",
        "| residues | frames a batch | sample | per residue, µs | products at full rate | of it redraw "
        "| further member | mode | sample, batch of one | Mflop | MB of factors and results | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["sizes"]:
        sample = row["sample_ms"]
        lines.append(
            f"| {row['residues']} | {row['frames']} | {sample:.2f} | {1e3 * sample / row['residues']:.0f} "
            f"| {1e9 * row['megaflops'] / rate:.2f} | {row['redraw_ms'] / sample:.0%} "
            f"| {row['further_member_ms']:.2f} ({row['further_member_ms'] / sample:.0%}) "
            f"| {row['mode_ms']:.2f} "
            f"| {row['sample_alone_ms']:.1f} | {row['megaflops']:.0f} | {row['product_megabytes']:.0f} "
            f"| {row['growth_mb_per_frame']:.1f} |"
        )
    lines += [
        "",
        f"Training step, {TRAINING_BATCH} frames of {TRAINING_SIZE} residues: "
        f"{result['training_step_seconds']:.2f} CPU seconds, peak memory grows by "
        f"{result['training_growth_mb']:.0f} MB.",
    ]
    return "\n".join(lines)


def plot(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    residues = [row["residues"] for row in result["sizes"]]
    for name, label in (
        ("sample_ms", "one member"),
        ("mode_ms", "one answer"),
        ("further_member_ms", "a further member"),
    ):
        axes.loglog(residues, [row[name] for row in result["sizes"]], "o-", label=label)
    first = result["sizes"][0]["sample_ms"] / residues[0]
    axes.loglog(residues, [first * n for n in residues], "k:", label="linear")
    axes.set(xlabel="residues", ylabel="CPU milliseconds a frame, one thread")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
