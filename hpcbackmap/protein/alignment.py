"""Global alignment of two sequences, by gemmi; a gap costs the same at any length."""

import gemmi
import numpy as np

__all__ = ["aligned", "identity"]

MATCH, MISMATCH, GAP = 2, -1, -5


def aligned(first: str, second: str) -> np.ndarray:
    """Places that belong together, int64 [pairs, 2], ascending."""
    scoring = gemmi.AlignmentScoring()
    scoring.match, scoring.mismatch, scoring.gapo, scoring.gape = MATCH, MISMATCH, GAP, 0
    found = gemmi.align_string_sequences(list(first), list(second), [], scoring)
    gapped = [found.add_gaps(first, 1), found.add_gaps(second, 2)]
    there = np.array([[letter != "-" for letter in word] for word in gapped])
    places = there.cumsum(1) - 1
    return places[:, there.all(0)].T.astype(np.int64)


def identity(first: str, second: str, pairs: np.ndarray) -> float:
    """Share of the shorter sequence that has the same letter in the other."""
    same = sum(first[a] == second[b] for a, b in pairs)
    return same / max(1, min(len(first), len(second)))
