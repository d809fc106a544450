"""The example as a user of ultra-coarse beads has it."""

from pathlib import Path

import mdtraj
import numpy as np

__all__ = ["BEADS", "beads_of_example"]

BEADS = 5


def beads_of_example(
    example_dir: Path, frames: int
) -> tuple[mdtraj.Trajectory, str, mdtraj.Trajectory, np.ndarray]:
    """Beads of four residues, the sequence, all atoms, and C-alpha atoms [F, 20, 3] of the first frames."""
    example = mdtraj.load(
        str(example_dir / "trpcage.xtc"), top=str(example_dir / "trpcage_top.pdb")
    )[:frames]
    calpha = example.xyz[:, example.topology.select("name CA")]
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number in range(BEADS):
        residue = topology.add_residue("UNK", chain, resSeq=number + 1)
        topology.add_atom("B", mdtraj.element.virtual, residue)
    beads = mdtraj.Trajectory(calpha.reshape(frames, BEADS, 4, 3).mean(2), topology)
    return beads, "".join(example.topology.to_fasta(0)), example, calpha
