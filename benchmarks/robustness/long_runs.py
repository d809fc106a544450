"""Long runs of `backmap FILE`, killed once and continued: CPU time, resident memory, nothing lost.

    HPCBACKMAP_DATA=FOLDER python benchmarks/robustness/long_runs.py SCRATCH [--short 100000] [--long 200]
        [--beads 100000] [--large 20]

Prints a Markdown record. ``short``: frames of the 20-residue example, over and over; ``long``: frames of 14
copies of p38 on a grid, 4,914 residues; ``beads``: frames of 10 beads of ten residues, the first hundred of
adenylate kinase on its transition paths, over and over, by two ranks of mpirun; ``large``: the frames of
``long`` as 490 beads. One structure a frame, XTC to XTC. Each run (of mpirun: a rank of it) gets SIGKILL once
60 % of its shards are recorded; the same command is started again. Resident memory of the largest process is
looked at once a second. Then three frames of the finished file are made once more, alone.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import mdtraj
import numpy as np
import psutil

from hpcbackmap.backmapping.output import stored_plan
from hpcbackmap.backmapping.plan import Plan
from hpcbackmap.runtime.errors import HpcbackmapError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from header import header
from trajectories import EXAMPLE, write_trajectory

KILLED = 0.6
COPIES = 14
RANKS = 2
BEADS, PER_BEAD = 10, 10
BEADS_OF_A_COPY = 35
APART = 9.0
"""nm between copies of p38."""
COUNTED = ("frames", "structures", "residues", "cis_elsewhere", "distorted_peptide_bonds")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scratch", type=Path)
    parser.add_argument(
        "--short", type=int, default=100_000, help="Frames of 20 residues; 0: none."
    )
    parser.add_argument("--long", type=int, default=200, help="Frames of 4,914 residues; 0: none.")
    parser.add_argument("--beads", type=int, default=100_000, help="Frames of 10 beads; 0: none.")
    parser.add_argument("--large", type=int, default=20, help="Frames of 490 beads; 0: none.")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    for line in header("`backmap FILE`: long runs, killed and continued"):
        print(line)
    for name in WRITE:
        if frames := getattr(arguments, name):
            print(*table(name, *measure(name, frames, arguments.scratch)), sep="\n", flush=True)


def measure(name: str, frames: int, folder: Path) -> tuple[list[dict], dict, float]:
    """The two runs, what the second one says, and how far single frames are off (nm)."""
    top, run = folder / f"{name}.pdb", folder / f"{name}.xtc"
    options = WRITE[name](top, run, frames) or []
    output = folder / f"{name}_out.xtc"
    command = [
        sys.executable, "-m", "hpcbackmap", "backmap", str(run), "--top", str(top), *options,
        "-o", str(output),
    ]  # fmt: skip
    under = MPIRUN if name == "beads" else []
    runs = [follow([*under, *command], output, kill) for kill in (True, False)]
    summary = json.loads(Path(f"{output}.json").read_text())["run"]
    return runs, summary, single_frames(command, output, frames)


def write_short(top: Path, run: Path, frames: int) -> None:
    mdtraj.load(str(EXAMPLE / "trpcage_top.pdb")).save_pdb(str(top))
    write_trajectory(run, frames)


def write_long(top: Path, run: Path, frames: int) -> None:
    folder = Path(os.environ["HPCBACKMAP_DATA"]) / "p38"
    loaded = mdtraj.load(str(folder / "p38_md.xtc"), top=str(folder / "p38_md_top.pdb"))
    trace = loaded.atom_slice(loaded.topology.select("name CA"))
    grid = np.array([[i % 4, i // 4 % 4, i // 16] for i in range(COPIES)], dtype=np.float32)
    places = (trace.xyz[:, None] + APART * grid[:, None]).reshape(trace.n_frames, -1, 3)
    topology = trace.topology
    for _ in range(COPIES - 1):
        topology = topology.join(trace.topology)
    mdtraj.Trajectory(places[:1], topology).save_pdb(str(top))
    times = np.arange(frames, dtype=np.float32)
    mdtraj.Trajectory(places[np.arange(frames) % len(places)], topology, times).save_xtc(str(run))


def write_beads(top: Path, run: Path, frames: int) -> list[str]:
    """Options that say what the beads are."""
    folder = Path(os.environ["HPCBACKMAP_DATA"]) / "adenylate_kinase"
    paths = [
        mdtraj.load(str(folder / f"adk_{path}.xtc"), top=str(folder / f"adk_{path}_top.pdb"))
        for path in ("dims_a", "dims_b", "dims_c", "dims_d")
    ]
    traces = [path.atom_slice(path.topology.select("name CA")) for path in paths]
    residues = BEADS * PER_BEAD
    positions = np.concatenate([trace.xyz for trace in traces])[:, :residues]
    sequence = traces[0].topology.to_fasta()[0][:residues]
    beads = positions.reshape(len(positions), BEADS, PER_BEAD, 3).mean(2)
    write_centres(top, run, beads[np.arange(frames) % len(beads)], [BEADS])
    return ["--sequence", sequence]


def write_large(top: Path, run: Path, frames: int) -> list[str]:
    """Options that say what the beads are."""
    write_long(top, run, frames)
    trace = mdtraj.load(str(run), top=str(top))
    sequence = trace.topology.to_fasta()[0]
    bead = np.arange(len(sequence)) * BEADS_OF_A_COPY // len(sequence)
    bead = np.concatenate([copy * BEADS_OF_A_COPY + bead for copy in range(COPIES)])
    beads = np.stack([trace.xyz[:, bead == b].mean(1) for b in range(bead.max() + 1)], 1)
    write_centres(top, run, beads, [BEADS_OF_A_COPY] * COPIES)
    return ["--sequence", sequence]


def write_centres(top: Path, run: Path, beads: np.ndarray, chains: list[int]) -> None:
    """Beads [F, B, 3] of chains of so many each, as files."""
    topology = mdtraj.Topology()
    for count in chains:
        chain = topology.add_chain()
        for _ in range(count):
            topology.add_atom("B1", None, topology.add_residue("BEA", chain))
    times = np.arange(len(beads), dtype=np.float32)
    mdtraj.Trajectory(beads[:1], topology).save_pdb(str(top))
    mdtraj.Trajectory(beads, topology, times).save_xtc(str(run))


WRITE = {"short": write_short, "long": write_long, "beads": write_beads, "large": write_large}
"""What writes the files of a run."""
MPIRUN = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", str(RANKS)]


def follow(command: list[str], output: Path, kill: bool) -> dict:
    """One run: shards recorded before it and when it ended, CPU seconds, resident MB by the second."""
    scratch = output.with_name(f".{output.name}.hpcbackmap")
    before, started = recorded(scratch), time.monotonic()
    process = subprocess.Popen([*command, "--quiet"], stdout=subprocess.DEVNULL)
    watched, memory, shards, cpu = psutil.Process(process.pid), [], before, 0.0
    while process.poll() is None:
        time.sleep(1)
        ranks = ranks_of(watched) if watched.is_running() else {}
        if not ranks:
            continue
        memory.append(max(size for size, _ in ranks.values()))
        cpu = max(cpu, sum(seconds for _, seconds in ranks.values()))
        shards = max(shards, recorded(scratch))
        if kill and shards >= KILLED * planned(scratch):
            os.kill(max(ranks), signal.SIGKILL)
            break
    code = process.wait()
    left = [path.name for path in output.parent.glob(f".{output.name}*")]
    return {
        "code": code, "before": before, "shards": shards, "cpu": cpu, "memory": memory, "left": left,
        "wall": time.monotonic() - started,
    }  # fmt: skip


def ranks_of(process: psutil.Process) -> dict[int, tuple[float, float]]:
    """Resident MB and CPU seconds so far of each process that does the work, under mpirun or by itself."""
    found = {}
    for rank in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            if rank.cmdline()[:2] == [sys.executable, "-m"]:
                times = rank.cpu_times()
                found[rank.pid] = rank.memory_info().rss / 2**20, times.user + times.system
    return found


def recorded(scratch: Path) -> int:
    return len([*scratch.glob("shards/.shards/*.json")])


def planned(scratch: Path) -> float:
    """Shards of the plan; infinite until there is one."""
    try:
        plan = stored_plan(scratch / "shards")
    except HpcbackmapError:
        return np.inf
    return len(Plan(**plan).shards) if plan else np.inf


def single_frames(command: list[str], output: Path, frames: int) -> float:
    """Largest distance (nm) of an atom between three frames of the output and the same ones made alone."""
    top, worst = output.with_name(f"{output.stem}_top.pdb"), 0.0
    for frame in (0, frames // 2, frames - 1):
        alone = output.with_name(f"{output.stem}_{frame}.xtc")
        more = ["-o", str(alone), "--frames", f"{frame}:{frame + 1}", "--quiet", "--force"]
        subprocess.run([*command[:-2], *more], check=True, stdout=subprocess.DEVNULL)
        pair = (
            mdtraj.load(str(alone), top=str(top)),
            mdtraj.load_frame(str(output), frame, top=str(top)),
        )
        worst = max(worst, float(np.abs(pair[0].xyz - pair[1].xyz).max()))
    return worst


def table(name: str, runs: list[dict], summary: dict, worst: float) -> list[str]:
    rows = ["", f"## {name}", "", "| | killed | continued |", "|---|---|---|"]
    for title, cell in (
        ("exit code", lambda run: run["code"]),
        ("shards recorded before, at the end", lambda run: f"{run['before']}, {run['shards']}"),
        ("CPU s, wall s", lambda run: f"{run['cpu']:.0f}, {run['wall']:.0f}"),
        ("resident MB after a quarter, a half, three quarters, all; most", lambda run: quarters(run["memory"])),
        ("left behind", lambda run: ", ".join(run["left"]) or "nothing"),
    ):  # fmt: skip
        rows.append(f"| {title} | {cell(runs[0])} | {cell(runs[1])} |")
    counts = ", ".join(f"{key} {summary.get(key)}" for key in COUNTED)
    rows += ["", f"{counts}, quarantined {len(summary.get('quarantined') or [])}.", ""]
    return [
        *rows,
        f"Three frames made alone differ by at most {worst:.4f} nm from those of the run.",
    ]


def quarters(memory: list[float]) -> str:
    if not memory:
        return "–"
    shown = [memory[min(len(memory) - 1, len(memory) * part // 4)] for part in (1, 2, 3, 4)]
    return ", ".join(f"{value:.0f}" for value in shown) + f"; {max(memory):.0f}"


if __name__ == "__main__":
    main()
