"""Global alignment of two sequences (Needleman and Wunsch 1970).

Ends are free, and a gap costs the same at any length.
"""

import numpy as np

__all__ = ["aligned", "identity"]

MATCH, MISMATCH, GAP = 2, -1, -5


def aligned(first: str, second: str) -> np.ndarray:
    """Places that belong together, int64 [pairs, 2], ascending."""
    if first == second:
        return np.stack([np.arange(len(first))] * 2, axis=1)
    scores = _scores(first, second)
    i, j = int(scores[:, -1].argmax()), len(second)
    if scores[-1].max() > scores[i, j]:
        i, j = len(first), int(scores[-1].argmax())
    pairs = []
    while i and j:
        gain = MATCH if first[i - 1] == second[j - 1] else MISMATCH
        if scores[i, j] == scores[i - 1, j - 1] + gain:
            i, j = i - 1, j - 1
            pairs.append((i, j))
            continue
        above = np.flatnonzero(scores[:i, j] + GAP == scores[i, j])
        if len(above):
            i = int(above[-1])
        else:
            j = int(np.flatnonzero(scores[i, :j] + GAP == scores[i, j])[-1])
    return np.array(pairs[::-1], dtype=np.int64).reshape(-1, 2)


def identity(first: str, second: str, pairs: np.ndarray) -> float:
    """Share of the shorter sequence that has the same letter in the other."""
    same = sum(first[a] == second[b] for a, b in pairs)
    return same / max(1, min(len(first), len(second)))


def _scores(first: str, second: str) -> np.ndarray:
    """Of the best alignment of the first i and the first j letters, int32 [n + 1, m + 1].

    A row at a time: the best place where a gap may have begun is a running maximum.
    """
    a, b = (np.frombuffer(word.encode(), dtype=np.uint8) for word in (first, second))
    scores = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int32)
    highest = scores[0].copy()
    for i, letter in enumerate(a):
        row = scores[i + 1]
        row[1:] = scores[i, :-1] + np.where(b == letter, MATCH, MISMATCH)
        row[1:] = np.maximum(row[1:], highest[1:] + GAP)
        row[1:] = np.maximum(row[1:], np.maximum.accumulate(row)[:-1] + GAP)
        highest = np.maximum(highest, row)
    return scores
