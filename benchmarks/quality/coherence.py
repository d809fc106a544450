"""How often rotamers of members hop along a real trajectory, and where its C-alpha trace stands still.

    HPCBACKMAP_DATA=FOLDER python benchmarks/quality/coherence.py [--frames N] [--coherence 1 5 20]

Ubc1 (149 residues), molecular dynamics in water, a frame every 40 ps. A hop is a chi 1 that is in another third
of the turn than in the frame before (alanine, glycine have none). *Still*: the first frame over and over. Steps
are root mean square displacements of side-chain atoms from frame to frame, C-alpha atoms superposed.
Divergence and RMSD are those of all frames against the true ones: what coherence must not change. Prints
a Markdown record.
"""

import argparse
import os
import sys
from pathlib import Path

import heavy_atoms
import mdtraj
import numpy as np

import hpcbackmap
from hpcbackmap.evaluation.bootstrap import Totals, summarise
from hpcbackmap.metrics.judge import METRICS, judge
from hpcbackmap.metrics.rotamers import rotamer_states
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology

sys.path.insert(0, str(Path(__file__).parents[1]))
from header import header

FILES = ("ubc1/ubc1_md.xtc", "ubc1/ubc1_md_top.pdb")
BLOCKS = 12
JUDGED = {
    "rmsd_aligned_angstrom": "RMSD (Å)",
    "chi1_jsd_nats": "χ1 divergence (nats)",
    "chi1_right_percent": "χ1 within 40° (%)",
}
BACKBONE = {"N", "CA", "C", "O", "OXT"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("HPCBACKMAP_DATA"))
    parser.add_argument("--frames", type=int, help="The first ones; default: all.")
    parser.add_argument("--coherence", type=int, nargs="*", default=[1, 5, 20])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where the data are: --data FOLDER, or HPCBACKMAP_DATA")
    trajectory, top = (str(Path(arguments.data) / file) for file in FILES)
    read = mdtraj.load(trajectory, top=top)[: arguments.frames]
    topology, index, _ = topology_from_mdtraj(read.topology, read.xyz[0], top)
    truth = read.xyz[:, index]
    calpha = read.atom_slice(read.topology.select("name CA"))
    still = calpha[[0] * len(calpha)]
    step = float(read.timestep) / 1000
    print(
        *header(f"Coherent members of Ubc1, {len(read)} frames every {1000 * step:.0f} ps"),
        sep="\n",
    )
    names = [f"{label} [95 %]" for key, label in JUDGED.items()]
    print(
        "| | hops per ns and residue | step (Å) | hops, still | step, still (Å) | "
        + " | ".join(names)
        + " |"
    )
    print("|---" * (5 + len(names)) + "|")
    print(row("MD itself", topology, truth, step), flush=True)
    ways: list[tuple[str, dict]] = [("one answer", {"mode": True})]
    ways += [(f"member, coherence {count}", {"coherence": count}) for count in arguments.coherence]
    for name, more in ways:
        made, frozen = (
            hpcbackmap.backmap(trace, representation="ca", **more)[0].xyz
            for trace in (calpha, still)
        )
        print(row(name, topology, made, step, frozen, truth), flush=True)


def row(
    name: str,
    topology: Topology,
    made: np.ndarray,
    step: float,
    frozen: np.ndarray | None = None,
    truth: np.ndarray | None = None,
) -> str:
    """Of structures [F, A, 3] every ``step`` ns; frozen: those of the trace that stands still."""
    cells = [
        f"{hops(topology, made) / step:.2f}",
        f"{moved(topology, superposed(topology, made)):.2f}",
    ]
    if frozen is None or truth is None:
        return "| " + " | ".join([name, *cells, *["–"] * (2 + len(JUDGED))]) + " |"
    cells += [f"{hops(topology, frozen) / step:.2f}", f"{moved(topology, frozen):.2f}"]
    totals = Totals(METRICS)
    totals.add(
        judge(topology, truth, made[:, None]), "md", np.arange(len(made)) * BLOCKS // len(made)
    )
    found = summarise(totals, BLOCKS, 200, 0)
    for item in METRICS:
        if item.name in JUDGED:
            cells.append(heavy_atoms.cell(found[item.name], item.digits))
    return "| " + " | ".join([name, *cells]) + " |"


def hops(topology: Topology, made: np.ndarray) -> float:
    """Share of residues whose chi 1 is in another rotamer than in the frame before."""
    states = rotamer_states(topology, made, chi2=False)
    return float((states[1:] != states[:-1]).mean())


def superposed(topology: Topology, made: np.ndarray) -> np.ndarray:
    trajectory = mdtraj.Trajectory(made, topology.to_mdtraj())
    return trajectory.superpose(trajectory, 0, atom_indices=topology.ca_index).xyz


def moved(topology: Topology, made: np.ndarray) -> float:
    """Root mean square displacement of side-chain atoms from frame to frame, Angstrom."""
    side = [a.index for a in topology.to_mdtraj().atoms if a.name not in BACKBONE]
    return 10 * float(np.sqrt(np.square(np.diff(made[:, side], axis=0)).sum(-1).mean()))


if __name__ == "__main__":
    main()
