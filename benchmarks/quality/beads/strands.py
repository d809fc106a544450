"""Strands by DSSP: C-alpha traces get atoms by the shipped heavy-atom stage, the truth has its own."""

import warnings
from pathlib import Path

import mdtraj
import numpy as np
import torch

from hpcbackmap.metrics.secondary import secondary_structure
from hpcbackmap.protein.named_residues import topology_from_mdtraj
from hpcbackmap.protein.topology import Topology
from hpcbackmap.resolution.ladder import Ladder
from hpcbackmap.runtime.shipped_weights import shipped_artifact
from hpcbackmap.stages.artifact import load_artifact
from hpcbackmap.stages.base import collate

__all__ = ["StrandsOf"]


class StrandsOf:
    """Which residues of one chain DSSP calls strands, in its file and in C-alpha traces of it."""

    def __init__(self, path: Path, ladder: Ladder):
        frame = mdtraj.load(str(path))
        topology, order, _ = topology_from_mdtraj(frame.topology, frame.xyz[0], path.name)
        self.topology, self.truth = ladder.topology, _strands(topology, frame.xyz[:, order])[0]
        self.stage = load_artifact(shipped_artifact())
        self.system = collate([self.stage.describe(ladder)])

    @torch.no_grad()
    def figures(self, traces: np.ndarray) -> dict[str, float]:
        """Means over traces [M, N, 3], nm: strand residues of the truth, those found, those made of others."""
        atoms = self.stage.mode(torch.from_numpy(traces).float(), self.system).numpy()
        whole = np.isfinite(atoms).all((1, 2))
        made = np.zeros((len(traces), len(self.truth)), dtype=bool)
        if whole.any():
            made[whole] = _strands(self.topology, atoms[whole])
        return {
            "strands": int(self.truth.sum()),
            "strands_found": float((made & self.truth).sum(1).mean()),
            "strands_wrong": float((made & ~self.truth).sum(1).mean()),
        }


def _strands(topology: Topology, positions: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return secondary_structure(topology, positions) == "E"
