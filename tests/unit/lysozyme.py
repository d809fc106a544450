"""Lambda lysozyme in solution: 158 residues of all twenty kinds."""

from pathlib import Path
from types import SimpleNamespace

import mdtraj

from hpcbackmap.protein.named_residues import topology_from_mdtraj


def load_lysozyme(data_dir: Path, stride: int = 20) -> SimpleNamespace:
    """Topology, and positions of the heavy atoms of every ``stride``-th frame, nm [F, A, 3]."""
    folder = data_dir / "lambda_lysozyme"
    frames = mdtraj.load(folder / "1am7_md.xtc", top=folder / "1am7_md_top.pdb")[::stride]
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], "1am7")
    return SimpleNamespace(topology=topology, positions=frames.xyz[:, index])
