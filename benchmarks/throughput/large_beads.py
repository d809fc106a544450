"""What a structure from beads of ten residues costs as the molecule grows: CPU time and memory per residue.

    HPCBACKMAP_DATA=FOLDER python benchmarks/throughput/large_beads.py [--copies 1 3 7 14]

Copies of p38 (351 residues, 35 beads each) on a grid 9 nm apart, so that 14 are 4,914 residues as 490 beads.
One frame, one member, the shipped stages, one thread; each size in a process of its own, which makes the frame
twice and reports the second. Prints a Markdown record. Memory is the peak of the process; that of size 0 is
what the libraries and the weights hold.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import mdtraj
import numpy as np
import torch

from hpcbackmap.protein.topology import topology_from_sequence
from hpcbackmap.resolution.build import build_ladder
from hpcbackmap.runtime.allocator import keep_freed_memory
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import Stage, collate
from hpcbackmap.stages.noise import frame_noise

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header

BEADS = 35
APART = 9.0
"""nm between copies."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 3, 7, 14])
    parser.add_argument("--one", type=int, help="One size, printed as JSON.")
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(cost(arguments.one)))
        return
    rows = []
    for copies in (0, *arguments.copies):
        command = [sys.executable, __file__, "--one", str(copies)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("\n".join([*header("Large molecules from beads of ten residues"), *table(rows)]))


@torch.no_grad()
def cost(copies: int) -> dict[str, float]:
    """CPU seconds of the description and of a member of each stage, peak memory (MB), residues."""
    keep_freed_memory()
    torch.set_num_threads(1)
    trace, heavy = load_artifact(shipped_artifact("beads-ca")), load_artifact(shipped_artifact())
    row = {"residues": 0.0, "describe": 0.0, "trace": 0.0, "heavy": 0.0}
    if copies:
        sequence, calpha = molecule(copies)
        began = time.process_time()
        topology = topology_from_sequence([sequence] * copies)
        ladder = build_ladder(topology, ["fg", "ca", f"ucg:{BEADS * copies}"])
        trace = trace.at_rung(f"{ladder.resolutions[-1]}-ca")
        first, second = collate([trace.describe(ladder)]), collate([heavy.describe(ladder)])
        row["describe"] = time.process_time() - began
        beads = torch.from_numpy(ladder.mappings[-1].apply(calpha)).float()[None]
        for _ in range(2):
            began = time.process_time()
            made = trace.samples(beads, first, [noise(trace, beads)])[0]
            between = time.process_time()
            heavy.samples(made, second, [noise(heavy, made)])
            row |= {"trace": between - began, "heavy": time.process_time() - between}
        row["residues"] = topology.n_residues
    return row | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def molecule(copies: int) -> tuple[str, np.ndarray]:
    """Sequence of one copy, C-alpha atoms [N, 3] of all, nm."""
    folder = Path(os.environ["HPCBACKMAP_DATA"]) / "p38"
    frame = mdtraj.load_frame(str(folder / "p38_md.xtc"), 0, top=str(folder / "p38_md_top.pdb"))
    trace = frame.atom_slice(frame.topology.select("name CA"))
    places = np.array([[i % 4, i // 4 % 4, i // 16] for i in range(copies)])
    positions = (trace.xyz[0] + APART * places[:, None]).reshape(-1, 3).astype(np.float64)
    return trace.topology.to_fasta()[0], positions


def noise(stage: Stage, coarse: torch.Tensor) -> torch.Tensor:
    drawn = frame_noise(0, stage.name, [0], 0, coarse.shape[1], stage.noise_width)
    return torch.from_numpy(drawn)


def table(rows: list[dict]) -> list[str]:
    nothing, *sizes = rows
    lines = [
        "| residues | beads | description, ms per residue | trace, ms per residue "
        "| heavy atoms, ms per residue | peak MB over libraries and weights | kB per residue |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sizes:
        n, more = row["residues"], row["peak_mb"] - nothing["peak_mb"]
        parts = [f"{1e3 * row[key] / n:.3f}" for key in ("describe", "trace", "heavy")]
        beads = BEADS * n // 351
        lines.append(
            f"| {n} | {beads} | {' | '.join(parts)} | {more:.0f} | {1024 * more / n:.0f} |"
        )
    return [*lines, "", f"Libraries and weights: {nothing['peak_mb']:.0f} MB."]


if __name__ == "__main__":
    main()
