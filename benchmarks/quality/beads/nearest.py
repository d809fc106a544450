"""Nearest neighbour: the baseline that copies stretches of the training set, alike in sequence and beads."""

import numpy as np
from fragments import WIDTH, keys, put

from hpcbackmap.resolution.mapping import Mapping

__all__ = ["Neighbours"]

LETTERS = "ARNDCQEGHILKMFPSTWYV"
ROWS = """\
4 -1 -2 -2 0 -1 -1 0 -2 -1 -1 -1 -1 -2 -1 1 0 -3 -2 0
-1 5 0 -2 -3 1 0 -2 0 -3 -2 2 -1 -3 -2 -1 -1 -3 -2 -3
-2 0 6 1 -3 0 0 0 1 -3 -3 0 -2 -3 -2 1 0 -4 -2 -3
-2 -2 1 6 -3 0 2 -1 -1 -3 -4 -1 -3 -3 -1 0 -1 -4 -3 -3
0 -3 -3 -3 9 -3 -4 -3 -3 -1 -1 -3 -1 -2 -3 -1 -1 -2 -2 -1
-1 1 0 0 -3 5 2 -2 0 -3 -2 1 0 -3 -1 0 -1 -2 -1 -2
-1 0 0 2 -4 2 5 -2 0 -3 -3 1 -2 -3 -1 0 -1 -3 -2 -2
0 -2 0 -1 -3 -2 -2 6 -2 -4 -4 -2 -3 -3 -2 0 -2 -2 -3 -3
-2 0 1 -1 -3 0 0 -2 8 -3 -3 -1 -2 -1 -2 -1 -2 -2 2 -3
-1 -3 -3 -3 -1 -3 -3 -4 -3 4 2 -3 1 0 -3 -2 -1 -3 -1 3
-1 -2 -3 -4 -1 -2 -3 -4 -3 2 4 -2 2 0 -3 -2 -1 -2 -1 1
-1 2 0 -1 -3 1 1 -2 -1 -3 -2 5 -1 -3 -1 0 -1 -3 -2 -2
-1 -1 -2 -3 -1 0 -2 -3 -2 1 2 -1 5 0 -2 -1 -1 -1 -1 1
-2 -3 -3 -3 -2 -3 -3 -3 -1 0 0 -3 0 6 -4 -2 -2 1 3 -1
-1 -2 -2 -1 -3 -1 -1 -2 -2 -3 -3 -1 -2 -4 7 -1 -1 -4 -3 -2
1 -1 1 0 -1 0 0 0 -1 -2 -2 0 -1 -2 -1 4 1 -3 -2 -2
0 -1 0 -1 -1 -1 -1 -2 -2 -1 -1 -1 -1 -2 -1 1 5 -2 -2 0
-3 -3 -4 -4 -2 -2 -3 -2 -2 -3 -2 -3 -1 1 -4 -3 -2 11 2 -3
-2 -2 -2 -3 -2 -1 -2 -3 2 -1 -1 -2 -1 3 -3 -2 -2 2 7 -1
0 -3 -3 -3 -1 -2 -2 -3 -3 3 1 -2 1 -1 -2 -2 0 -3 -1 4"""
BLOSUM62 = np.array([row.split() for row in ROWS.splitlines()], dtype=np.int8)
"""Henikoff and Henikoff 1992, rows and columns by `LETTERS`."""
NEAR = 5000
"""Stretches whose sequence is looked at: those nearest in the geometry of the beads."""
SEQUENCE = 0.02
"""What a half-bit of BLOSUM62 a residue is worth beside the squared distance of scaled geometries."""


class Neighbours:
    """Stretches of four beads of all training chains: sequence, distances of bead centres, C-alpha atoms.

    letters int8 [P, 4 n]; keys float32 [P, 7] (`fragments.keys`) and their scale [7]; found: chain and first
    residue of each stretch; traces: C-alpha atoms [N, 3] of each chain, nm.
    """

    def __init__(self, residues: int, traces: list[np.ndarray], sequences: list[str]):
        self.residues, self.traces = residues, traces
        length = WIDTH * residues
        letters, kept, found = [], [], []
        for number, (trace, sequence) in enumerate(zip(traces, sequences, strict=True)):
            starts = np.arange(0, len(trace) - length + 1, 2)
            if not len(starts):
                continue
            place = starts[:, None] + np.arange(length)
            letters.append(codes(sequence)[place])
            beads = trace[place].reshape(len(starts), WIDTH, residues, 3).mean(2)
            kept.append(keys(beads).astype(np.float32))
            found += [(number, first) for first in starts]
        self.letters, self.keys, self.found = np.concatenate(letters), np.concatenate(kept), found
        self.scale = self.keys.std(0)

    def answer(
        self, mapping: Mapping, beads: np.ndarray, sequence: str, fallback: np.ndarray
    ) -> np.ndarray:
        """Trace [N, 3]: each bead's residues from the stretch most like its own, put on its centre."""
        trace = fallback.copy()
        if mapping.n_coarse < WIDTH:
            return trace
        own = codes(sequence)
        for bead in range(mapping.n_coarse):
            first = int(np.clip(bead - 1, 0, mapping.n_coarse - WIDTH))
            window = beads[first : first + WIDTH]
            stretch = np.concatenate([self._letters(own, mapping, first + k) for k in range(WIDTH)])
            chain, start = self.found[self._nearest(window, stretch)]
            piece = self.traces[chain][start : start + WIDTH * self.residues]
            put(trace, piece, mapping, beads, bead, first)
        return trace

    def _letters(self, own: np.ndarray, mapping: Mapping, bead: int) -> np.ndarray:
        """Residues of a bead, stretched or cut to the length of those that are known."""
        members = np.flatnonzero(mapping.bead == bead)
        return own[members[np.linspace(0, len(members) - 1, self.residues).round().astype(int)]]

    def _nearest(self, window: np.ndarray, stretch: np.ndarray) -> int:
        gap = (((self.keys - keys(window[None])) / self.scale) ** 2).mean(1)
        near = np.arange(len(gap))
        if len(gap) > NEAR:
            near = np.argpartition(gap, NEAR)[:NEAR]
        alike = BLOSUM62[self.letters[near], stretch].mean(1)
        return int(near[np.argmin(gap[near] - SEQUENCE * alike)])


def codes(sequence: str) -> np.ndarray:
    """Place of each residue in `LETTERS`, int8 [N]."""
    return np.array([LETTERS.index(letter) for letter in sequence], dtype=np.int8)
