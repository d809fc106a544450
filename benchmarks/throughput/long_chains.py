"""Proteins of any length from one: its chain is repeated along a line and cut."""

from dataclasses import replace

import mdtraj
import numpy as np
import torch

from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology

__all__ = ["chain_of", "read_chain"]

GAP = 0.5
"""Between one copy and the next, nm."""


def read_chain(path: str) -> tuple[Topology, np.ndarray]:
    """Topology and positions [A, 3] (nm) of the first frame of a one-chain structure."""
    loaded = mdtraj.load(path)[0]
    topology, index, _ = topology_from_mdtraj(loaded.topology, loaded.xyz[0], path)
    return topology, loaded.xyz[0, index]


def chain_of(
    residues: int, topology: Topology, positions: np.ndarray
) -> tuple[Topology, torch.Tensor]:
    """Topology and positions [1, A, 3] of ``residues`` residues; every copy is a chain of its own."""
    copies = -(-residues // topology.n_residues)
    step = np.array([np.ptp(positions[:, 0]) + GAP, 0, 0])
    count = topology.n_residues
    kept = np.tile(topology.atom_residue, copies)
    kept += count * np.arange(copies).repeat(topology.n_atoms)
    everything = np.concatenate([positions + i * step for i in range(copies)])
    longer = replace(
        topology,
        sequence=(topology.sequence * copies)[:residues],
        chain_index=tuple(i // count for i in range(residues)),
        chain_ids=tuple(str(i) for i in range(copies)),
        residue_numbers=tuple(i % count + 1 for i in range(residues)),
        bonded=(topology.bonded * copies)[:residues],
        has_oxt=(topology.has_oxt * copies)[:residues],
        disulphides=(),
    )
    return longer, torch.from_numpy(everything[kept < residues].astype(np.float32))[None]
