"""Secondary structure: helix, strand or neither, as DSSP assigns it (through mdtraj)."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hpcbackmap.protein.topology import Topology

if TYPE_CHECKING:
    import mdtraj

__all__ = ["agreement", "helix_recovered", "secondary_structure"]


def secondary_structure(topology: Topology, positions: np.ndarray) -> np.ndarray:
    """``H``, ``E`` or ``C`` of each residue, [F, R]; positions [F, A, 3], nm.

    Kabsch and Sander 1983, eight states joined to three. It needs backbone atoms only.
    """
    import mdtraj

    keep = np.isin(topology.atom_names, ("N", "CA", "C", "O"))
    trajectory = mdtraj.Trajectory(positions[:, keep], _backbone(topology))
    found: np.ndarray = mdtraj.compute_dssp(trajectory, simplified=True)
    return found


@lru_cache(maxsize=16)
def _backbone(topology: Topology) -> "mdtraj.Topology":
    import mdtraj

    backbone = mdtraj.Topology()
    chains = [backbone.add_chain() for _ in topology.chain_ids]
    for name, chain in zip(topology.sequence, topology.chain_index, strict=True):
        residue = backbone.add_residue(name, chains[chain])
        for atom in ("N", "CA", "C", "O"):
            backbone.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue)
    return backbone


def agreement(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of residues in the state of the truth, [F]; both [F, R]."""
    found: np.ndarray = (generated == truth).mean(-1)
    return found


def helix_recovered(generated: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the helical residues of the truth that are helical, [F]; NaN where there are none."""
    helix = truth == "H"
    number = helix.sum(-1)
    found: np.ndarray = (helix & (generated == "H")).sum(-1) / np.where(number, number, np.nan)
    return found
