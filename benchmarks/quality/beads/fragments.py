"""Fragment look-up: the baseline that copies pieces of known structures between bead centres."""

import numpy as np

from hpcbackmap.metrics.rmsd import superpose
from hpcbackmap.resolution.mapping import Mapping

__all__ = ["WIDTH", "Library", "keys", "put"]

WIDTH = 4
"""Bead centres that a piece is matched by."""


class Library:
    """Pieces of C-alpha traces by the distances of four successive bead centres.

    keys [P, 7]: six distances and the signed volume; pieces [P, 4 n, 3], nm.
    """

    def __init__(self, keys: np.ndarray, pieces: np.ndarray):
        self.keys, self.pieces = keys, pieces

    @classmethod
    def of(cls, residues: int, traces) -> "Library":
        """All pieces of ``traces`` (each [N, 3], nm) cut into beads of ``residues``."""
        pieces = []
        for trace in traces:
            starts = range(0, len(trace) - WIDTH * residues + 1, 2)
            pieces += [trace[first : first + WIDTH * residues] for first in starts]
        pieces = np.array(pieces)
        beads = pieces.reshape(len(pieces), WIDTH, residues, 3).mean(2)
        return cls(keys(beads), pieces)

    def answer(self, mapping: Mapping, beads: np.ndarray, fallback: np.ndarray) -> np.ndarray:
        """Trace [N, 3]: each bead's members from the best piece around it, put on its centre."""
        trace = fallback.copy()
        for bead in range(mapping.n_coarse):
            first = int(np.clip(bead - 1, 0, mapping.n_coarse - WIDTH))
            if mapping.n_coarse < WIDTH:
                return trace
            window = beads[first : first + WIDTH]
            best = int(((self.keys - keys(window[None])) ** 2).sum(1).argmin())
            put(trace, self.pieces[best], mapping, beads, bead, first)
        return trace


def put(
    trace: np.ndarray, piece: np.ndarray, mapping: Mapping, beads: np.ndarray, bead: int, first: int
) -> None:
    """Write the residues of ``bead`` into ``trace`` as ``piece`` has them, laid on beads ``first`` and on."""
    window, per = beads[first : first + WIDTH], len(piece) // WIDTH
    own = piece.reshape(WIDTH, per, 3).mean(1)
    placed = superpose(piece[None], window[None], own[None], window[None])[0]
    members = np.flatnonzero(mapping.bead == bead)
    part = placed[(bead - first) * per : (bead - first + 1) * per]
    place = np.linspace(0, per - 1, len(members))
    part = np.stack([np.interp(place, np.arange(per), part[:, k]) for k in range(3)], 1)
    trace[members] = part - part.mean(0) + beads[bead]


def keys(beads: np.ndarray) -> np.ndarray:
    """Six distances and the signed volume of windows [P, 4, 3] of bead centres: [P, 7]."""
    first, second = np.triu_indices(WIDTH, 1)
    distances = np.linalg.norm(beads[:, first] - beads[:, second], axis=-1)
    step = np.diff(beads, axis=1)
    volume = (np.cross(step[:, 0], step[:, 1]) * step[:, 2]).sum(-1)
    scale = np.linalg.norm(step, axis=-1).mean(1) ** 2 + 1e-9
    return np.concatenate([distances, (volume / scale)[:, None]], 1)
