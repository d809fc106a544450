"""Lambda lysozyme in solution: 158 residues of all twenty kinds. Adenylate kinase, with a cis proline."""

from pathlib import Path
from types import SimpleNamespace

import mdtraj

from hpcbackmap.protein.named_residues import topology_from_mdtraj


def load_lysozyme(data_dir: Path, stride: int = 20) -> SimpleNamespace:
    """Topology, and positions of the heavy atoms of every ``stride``-th frame, nm [F, A, 3]."""
    return _load(data_dir / "lambda_lysozyme", "1am7_md", stride)


def load_adenylate_kinase(data_dir: Path, stride: int = 30) -> SimpleNamespace:
    """The same of its opening: of ten prolines that of residue 87 is cis."""
    return _load(data_dir / "adenylate_kinase", "adk_dims_a", stride)


def _load(folder: Path, name: str, stride: int) -> SimpleNamespace:
    frames = mdtraj.load(folder / f"{name}.xtc", top=folder / f"{name}_top.pdb")[::stride]
    topology, index, _ = topology_from_mdtraj(frames.topology, frames.xyz[0], name)
    return SimpleNamespace(topology=topology, positions=frames.xyz[:, index])
